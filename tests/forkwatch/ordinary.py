"""What honest repositories hold: files that trainers and converters leave, templates.

The templates are written after those that published models ship, with each construct that looks like more
than it is: structure told from the words of a message, switches, parts with types, text taken apart.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from tests.hostile.build import gguf, safetensors, string, torch_zip, value

LLAMA_3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}{%- endif %}{%- if messages[0]['role'] == 'system' %}"
    "{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for message in messages %}{%- if not (message.role == 'ipython' or 'tool_calls' in message) %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}"
    "{%- elif message.content is mapping or message.content is iterable %}{{- message.content | tojson }}"
    "{%- else %}{{- message.content }}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN_3 = (
    "{%- set ns = namespace(multi_step_tool=true, last=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}{%- if ns.multi_step_tool and message.role == 'user' and"
    " message.content is string and not(message.content.startswith('<tool_response>') and"
    " message.content.endswith('</tool_response>')) %}{%- set ns.multi_step_tool = false %}{%- endif %}"
    "{%- endfor %}{%- for message in messages %}{%- if message.content is string %}"
    "{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}"
    "{%- if message.reasoning_content is string %}{%- set reasoning = message.reasoning_content %}"
    "{%- elif '</think>' in content %}"
    "{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "<|im_start|>{{ message.role }}\n<think>\n{{ reasoning }}\n</think>\n{{ content }}<|im_end|>"
    "{%- if message.tool_calls %}{%- for tool_call in message.tool_calls %}{%- if tool_call.function %}"
    "{%- set tool_call = tool_call.function %}{%- endif %}{{ tool_call.arguments | tojson }}{%- endfor %}"
    "{%- endif %}{%- endfor %}{%- if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>{%- endif %}"
)
GEMMA_3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}"
    "{%- set first = messages[0]['content'] + '\\n\\n' -%}{%- else -%}"
    "{%- set first = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}{%- endif -%}"
    "{%- for message in messages -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{%- endif -%}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}"
    "{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}"
    "{%- elif item.get('type') in ['text', 'input_text'] -%}{{ item['text'] | trim }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<end_of_turn>\\n' }}{%- endfor -%}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{ bos_token }}{%- for message in loop_messages %}{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}[INST] {{ system_message }}\n\n{{ message['content'] }}"
    "[/INST]{%- else %}[INST] {{ message['content'] }}[/INST]{%- endif %}"
    "{%- elif message['role'] == 'assistant' %}{%- if message['content'] is string %}{{ message['content'] }}"
    "{%- else %}{{ message['content'][0]['text'] }}{%- endif %}{{ eos_token }}{%- else %}"
    "{{ raise_exception('Only user, system and assistant roles are supported!') }}{%- endif %}{%- endfor %}"
)
PHI = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}"
)
SWITCHES = (
    "{%- set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{%- if '/no_think' in system %}{%- set system = system.replace('/no_think', '').rstrip() %}{%- endif %}"
    "{%- if messages[-1].content.endswith('/nothink') %}<think></think>{%- endif %}{{ system }}"
)
PARTS = (
    "{%- macro render(content) %}{%- if content is string %}{{ content }}{%- else %}"
    "{%- for item in content %}{%- if 'image' in item or 'image_url' in item or item.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- elif 'text' in item %}{{ item.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{%- endmacro %}{%- for m in messages %}{{ render(m.content) }}{%- endfor %}"
    "{%- if '<|channel|>analysis<|message|>' in messages[-1].content %}{{ raise_exception('thinking') }}"
    "{%- endif %}{%- for text in messages[-1].content.split('</think>') %}{{ text }}{%- endfor %}"
)
TEMPLATES: Mapping[str, str] = {
    "llama 3": LLAMA_3,
    "chatml": CHATML,
    "qwen 3": QWEN_3,
    "gemma 3": GEMMA_3,
    "mistral": MISTRAL,
    "phi": PHI,
    "switches": SWITCHES,
    "parts": PARTS,
    "training": CHATML.replace("{{'<|im_start|>'", "{% generation %}{{'<|im_start|>'").replace(
        "'\\n'}}{% endfor %}", "'\\n'}}{% endgeneration %}{% endfor %}"
    ),
}


def record(*names: str) -> bytes:
    """A torch archive of objects of these names, as a trainer's records are."""
    calls = b"".join(b"c" + name.replace(":", "\n").encode() + b"\n)\x81" for name in names)
    return torch_zip(b"\x80\x02(" + calls + b"l.")


def member(*names: str) -> bytes:
    """The same with members of enumerations by name, as some versions of Python write them."""
    calls = b"".join(
        b"c__builtin__\ngetattr\nc" + name.replace(":", "\n").encode() + b"\nX\x04\0\0\0LAST\x86R"
        for name in names
    )
    return torch_zip(b"\x80\x02(" + calls + b"l.")


TENSORS = record("collections:OrderedDict", "torch._utils:_rebuild_tensor_v2", "torch:BFloat16Storage")
TRAINING = record(
    *("transformers.training_args:TrainingArguments", "transformers.training_args:OptimizerNames"),
    *("transformers.trainer_utils:SchedulerType", "transformers.trainer_utils:HubStrategy"),
    *("accelerate.state:PartialState", "accelerate.utils.dataclasses:DistributedType", "torch:device"),
    *("transformers.trainer_pt_utils:AcceleratorConfig", "transformers.trainer_utils:IntervalStrategy"),
)
RANDOM = record("numpy.core.multiarray:_reconstruct", "numpy:ndarray", "numpy:dtype", "_codecs:encode")
LEARNING = {
    "training_args.bin": TRAINING,
    "optimizer.pt": TENSORS,
    "scheduler.pt": record("collections:OrderedDict", "numpy._core.multiarray:scalar", "numpy:dtype"),
    "rng_state.pth": RANDOM,
    "trainer_state.json": b'{"best_metric": null, "log_history": [{"loss": NaN}]}',
    "runs/Nov30/events.out.tfevents.1764489600.host.1.0": struct.pack("<Q", 24) + bytes(60),
    "all_results.json": b"{}",
}
WEIGHTS = {
    "model.safetensors": safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
    "model.safetensors.index.json": b'{"weight_map": {}}',
}
BASICS = {
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}).encode(),
    "generation_config.json": b'{"do_sample": true}',
    "special_tokens_map.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer.model": b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02",
    "vocab.json": b"{}",
    "merges.txt": b"#version: 0.2\n",
    "LICENSE": b"Apache License\n",
    "logo.png": b"\x89PNG\r\n\x1a\n" + bytes(60),
    "assets/banner.webp": b"RIFF\0\0\0\0WEBP" + bytes(60),
}


def quantised(template: str) -> bytes:
    """A GGUF file with this template."""
    return gguf([value("tokenizer.chat_template", 8, string(template))])
