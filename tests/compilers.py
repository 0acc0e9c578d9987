"""A compiler and an extraction that stand in for neuronx-cc and a run: they keep to the cache's layout.

The compiler does what a graph's bytes say: ok, fail, once (fails the first time), killed (by SIGKILL, the first time),
none (writes nothing), slow. It notes when it begins and ends in the file that COMPILER_LOG names.
"""

from __future__ import annotations

import gzip
import json
import shlex
import sys
from pathlib import Path

VERSION = "neuronxcc-2.23.6484.0+3b612583"
FLAGS = ["--target=trn1", "--auto-cast=none", "--model-type=transformer"]

_COMPILER = """\
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
hlo, neff = pathlib.Path(words[2]), pathlib.Path(words[words.index("--output") + 1])
what, log = hlo.read_bytes().decode().split()[0], pathlib.Path(os.environ["COMPILER_LOG"])
def note(event):
    with open(log, "a") as file:
        file.write(json.dumps([event, hlo.parent.name, what, time.monotonic(), words]) + "\\n")
note("begin")
first = sum(json.loads(line)[:2] == ["begin", hlo.parent.name] for line in open(log)) == 1
time.sleep(60 if what == "slow" else 0.05)
if what == "killed" and first:
    note("end")
    os.kill(os.getpid(), signal.SIGKILL)
if what == "fail" or what == "once" and first:
    print("ERROR: [NCC_EBVF030] too many instructions")
    note("end")
    sys.exit(70)
if what != "none":
    neff.write_bytes(b"NEFF" + hlo.read_bytes())
note("end")
"""
_EXTRACTION = """\
import json, os, pathlib, sys
assert os.environ["NEURON_EXTRACT_GRAPHS_ONLY"] == "1"
cache = pathlib.Path(os.environ["NEURON_COMPILE_CACHE_URL"])
for name, what in json.loads(sys.argv[1]).items():
    entry = cache / sys.argv[2] / f"MODULE_{name}+e30acd3a"
    if (entry / "model.done").exists():
        print(f"INFO ||NEURON_CC_WRAPPER||: Using a cached neff at {entry}/model.neff")
        continue
    entry.mkdir(parents=True, exist_ok=True)
    (entry / "model.hlo_module.pb").write_text(what)
    (entry / "compile_flags.json").write_text(sys.argv[3])
    print(f"Extracting graphs ({entry}/model.hlo_module.pb) for ahead-of-time parallel compilation.")
print("loss 0.0")
sys.exit(int(sys.argv[4]))
"""


def compiler(directory: Path) -> list[str]:
    """The command of the stand-in for neuronx-cc."""
    path = directory / "compiler.py"
    path.write_text(_COMPILER)
    return [sys.executable, str(path)]


def extraction(directory: Path, graphs: dict[str, str], code: int = 0) -> str:
    """The command line of the stand-in for a run under extraction. graphs: by name, what the compiler is to do."""
    path = directory / "extraction.py"
    path.write_text(_EXTRACTION)
    return shlex.join([sys.executable, str(path), json.dumps(graphs), VERSION, json.dumps(FLAGS), str(code)])


def entry(cache: Path, name: str, what: str = "ok", zipped: bool = False, **files: str) -> Path:
    """A graph in a cache. files: further ones of its directory, by name with _ for the dot."""
    directory = cache / VERSION / f"MODULE_{name}+e30acd3a"
    directory.mkdir(parents=True)
    data = what.encode()
    (directory / f"model.hlo_module.pb{'.gz' if zipped else ''}").write_bytes(gzip.compress(data) if zipped else data)
    (directory / "compile_flags.json").write_text(json.dumps(FLAGS))
    for file, text in files.items():
        (directory / f"model.{file}").write_text(text)
    return directory
