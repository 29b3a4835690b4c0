"""The loopback hub: the Hub's HTTP API over real sockets on this machine, for `forkwatch demo` and the tests.

    with LoopbackHub() as hub:
        hub.create_repo("demo/model")
        hub.commit("demo/model", {"config.json": b"{}", "model.safetensors": path})
        hub.inject(Fault("resolve", "429", retry_after=1))
        HfApi(endpoint=hub.endpoint).model_info("demo/model")

`server` has the public class, `app` the router, `details`, `listing` and `content` the endpoints, `views` and
`card` what the Hub derives from the files, `catalogue` the indexes, `sketch` repositories without weights,
`origin` the sockets, `faults` the misbehaviour.
"""

from forkwatch.demo.hub.family import FamilyLayoutError, load_family
from forkwatch.demo.hub.faults import Fault
from forkwatch.demo.hub.gguf import Gguf
from forkwatch.demo.hub.limits import Quota, WindowUse
from forkwatch.demo.hub.server import LoopbackHub, RecordedRequest
from forkwatch.demo.hub.sketch import Sketch

__all__ = [
    "FamilyLayoutError",
    "Fault",
    "Gguf",
    "LoopbackHub",
    "Quota",
    "RecordedRequest",
    "Sketch",
    "WindowUse",
    "load_family",
]
