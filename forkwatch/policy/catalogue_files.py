"""Rows of the catalogue about files, their names, and chat templates as programs."""

from __future__ import annotations

from forkwatch.policy.spec import FindingSpec

FILE_SPECS = (
    FindingSpec(
        "pickle-file",
        "Holds a pickle",
        "medium",
        "A file in Python's pickle format can run code when it is loaded. This one names only the tensor-building functions.",
        "Opcodes parsed against an allow-list; the file was not loaded.",
        "Load the safetensors file instead.",
    ),
    FindingSpec(
        "unsafe-pickle",
        "Holds a pickle that can run code",
        "critical",
        "A pickle in the repository names something outside the allow-list, or is made so that two readers see different files. "
        "Loading it runs what it names; that can be an attack, or the pickled class of an honest script.",
        "Opcodes walked against an allow-list; the file was not loaded.",
        "Do not load it. Report it to the platform unless what it names explains itself.",
    ),
    FindingSpec(
        "unread-pickle",
        "Holds a pickle that was not read",
        "high",
        "A pickle is longer than what is read of one, one of more than are read, or packed. Nothing is known about it.",
        "Bounds on bytes, opcodes and files; within them, nothing outside the allow-list was found.",
        "Treat it as one that can run code.",
    ),
    FindingSpec(
        "executable-file",
        "Holds scripts or programs",
        "medium",
        "The repository holds files that are meant to be executed.",
        "File names and magic bytes.",
        "Do not run them; weights need none.",
    ),
    FindingSpec(
        "remote-code",
        "Asks to run its own code",
        "high",
        "The configuration points the loading library to Python code in the repository, or a graph carries code with it.",
        "`auto_map`, `trust_remote_code`, custom pipelines, modules or kernel repositories in the configuration files; Lambda layers of Keras.",
        "Never load it with trust_remote_code.",
    ),
    FindingSpec(
        "malformed-config",
        "A configuration file breaks its format",
        "low",
        "A JSON configuration cannot be parsed, or is too large to be one.",
        "Bounded reading and a strict parse; nothing was loaded.",
        "Use the original's configuration.",
    ),
    FindingSpec(
        "hostile-name",
        "A file name is made to mislead",
        "high",
        "A file name holds control or bidirectional characters, leads out of the repository, or imitates the name of a file that "
        "loaders ask for. Names within archives count as well.",
        "Characters of the names. A file whose name no disk could hold is left out of everything else.",
        "Do not download the repository with tools that write names as given.",
    ),
    FindingSpec(
        "colliding-names",
        "Two file names are one on some disks",
        "medium",
        "Two names differ only in the case of letters or in how accents are composed, or a file is named as a folder. On such a "
        "disk one replaces the other, and which one is left depends on the tool.",
        "Names of the file list, folded. One of them is examined: of two spellings the one that loaders ask for.",
        "Look at both files. A careless upload and an attempt to show different files to different readers look the same.",
    ),
    FindingSpec(
        "unportable-name",
        "A file name that Windows cannot hold",
        "low",
        "Windows stores the name as another one, as a device or as a hidden stream of another file, or not at all.",
        "Reserved names, final dots and spaces, and characters that Windows does not store.",
        "Rename the file before the repository is downloaded there.",
    ),
    FindingSpec(
        "disguised-file",
        "A file is not what its name says",
        "medium",
        "A text file, an image or a weight file begins as a file of another kind: a program, a pickle, an archive, other weights.",
        "The first 512 bytes, of up to 16 text files and images and of all others up to 256.",
        "Do not open it with anything that goes by content.",
    ),
    FindingSpec(
        "packed-archive",
        "Holds an archive that was not looked into",
        "low",
        "A compressed or nested archive can hold anything.",
        "Magic bytes. Zip and plain tar archives are listed; nothing is extracted.",
        "Do not extract it with tools that follow names and links; weights need no archive.",
    ),
    FindingSpec(
        "unsafe-template",
        "The chat template attacks whoever renders it",
        "high",
        "The chat template reaches for Python's own internals or for other templates, or takes time and memory that no conversation "
        "needs; the original's does not. Loaders that render it without a sandbox run what it says (CVE-2024-34359, CVE-2026-5760).",
        "The template's syntax tree, compared with the original's; it was not rendered.",
        "Do not load it. Use the original's template.",
    ),
    FindingSpec(
        "template-trigger",
        "The chat template reacts to certain words",
        "medium",
        "The chat template looks for words in a message, which the original's does not. It can add instructions when they come, and "
        "no test without them would show it; it can also be a switch that the card documents.",
        "Literals that the syntax tree compares with the content of messages, less those of the original's templates.",
        "Read the template. Use the original's if nothing explains the words.",
    ),
    FindingSpec(
        "odd-template",
        "The chat template cannot be judged",
        "low",
        "A chat template is too long or does not parse, uses what Jinja does not have, or was not read.",
        "Jinja's own parser with bounds on size and depth.",
        "Use the original's template.",
    ),
    FindingSpec(
        "malformed-weights",
        "A weight file breaks its format",
        "medium",
        "The file is truncated, or its header contradicts itself.",
        "Our own bounded readers, before any library sees the file.",
        "Do not load it. A damaged upload and an attack on parsers look the same from here.",
    ),
    FindingSpec(
        "unreadable-weights",
        "Weights in an encoding that is not read",
        "info",
        "The files are well formed, but hold tensors in an encoding that forkwatch does not decode, or none that can be compared.",
        "The types that the file headers name.",
        "Compare another build of the same model, or treat it as unknown.",
    ),
    FindingSpec(
        "no-weights",
        "No weights that can be read",
        "info",
        "The repository holds no safetensors, GGUF or PEFT adapter.",
        "The file list.",
        "Nothing to examine. Formats that run code when loaded are not read.",
    ),
)
