"""Variables of a job, and what a machine shows of itself. Expected values are those of AWS's documents."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from trainer.trainium.contradictions import contradictions
from trainer.trainium.environment import (
    EVERY,
    NAMES,
    REFUSED,
    Job,
    apply,
    flag,
    limit_arenas,
    merged_flags,
    recorded,
    settle,
    variables,
)
from trainer.trainium.host import detect
from trainer.trainium.installed import found

SOFT = "NEURON_RT_STOCHASTIC_ROUNDING"
ASYNC = "NEURON_RT_ASYNC_EXEC_MAX_INFLIGHT_REQUESTS"


def values(job: Job, **environ: str) -> dict[str, str]:
    return dict(settle(job, environ).values)


def test_rounding_follows_the_precision() -> None:
    assert values(Job(precision="bf16"))[f"{SOFT}_EN"] == "1"
    assert values(Job(precision="bf16"))[f"{SOFT}_SEED"] == "0"
    for mode in ("bf16_mixed", "fp32"):
        assert values(Job(precision=mode))[f"{SOFT}_EN"] == "0"
        assert f"{SOFT}_SEED" not in values(Job(precision=mode))


@pytest.mark.parametrize(
    ("runtime", "there"),
    [(None, True), ("2.30.51.0-2a0", True), ("2.32.31.0", True), ("2.33.10.0", False), ("3.0", False)],
)
def test_implicit_asynchrony_ended_with_runtime_2_33(runtime: str | None, there: bool) -> None:
    assert (ASYNC in values(Job(runtime=runtime))) is there
    told = settle(Job(runtime=runtime), {ASYNC: "3"}).notes
    assert any("no effect" in note for note in told) is not there


def test_the_network_is_for_several_nodes() -> None:
    efa = {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"}
    assert efa.items() <= values(Job(nodes=2)).items()
    assert not efa.keys() & values(Job()).keys()


def test_two_jobs_of_a_node_meet_at_two_ports() -> None:
    name = "NEURON_RT_ROOT_COMM_ID"
    ports = {values(Job(first_core=core))[name] for core in (8, 16, 24)}
    assert len(ports) == 3
    assert "localhost:62182" not in ports, "torch-xla's own, which the job of core 0 takes"
    assert name not in values(Job())


def test_no_bucket_is_above_what_became_nan() -> None:
    caps = {name: int(value) for name, value in values(Job(nodes=4)).items() if "BUCKET" in name}
    assert len(caps) == 2
    assert all(cap <= 130 for cap in caps.values())


def test_nothing_is_set_that_is_refused() -> None:
    assert not {variable.name for variable in EVERY} & set(REFUSED)
    assert "XLA_DISABLE_FUNCTIONALIZATION" in REFUSED
    assert not list(contradictions(Job(nodes=2), values(Job(nodes=2)))), "a second launch from the same shell is fine"


def test_every_variable_has_its_reason_and_source() -> None:
    for variable in EVERY:
        assert len(variable.reason) > 10
        assert re.match(r"sdk [\w./-]+\.rst|nxd |torch-xla |github\.com/", variable.source), variable


def test_the_users_harmless_values_stay_and_are_reported() -> None:
    own = {"NEURON_RT_EXEC_TIMEOUT": "4000", "NEURON_CC_FLAGS": "-O1 --model-type transformer", "PJRT_DEVICE": "NEURON"}
    settled = settle(Job(), own)
    assert settled.values["NEURON_RT_EXEC_TIMEOUT"] == "4000"
    assert (
        settled.values["NEURON_CC_FLAGS"] == "--auto-cast=none --retry_failed_compilation -O1 --model-type transformer"
    )
    assert [note.partition("=")[0] for note in settled.notes] == ["NEURON_CC_FLAGS", "NEURON_RT_EXEC_TIMEOUT"]


def test_flags_are_read_in_both_spellings() -> None:
    assert flag("--auto-cast=all -O1", "--auto-cast") == flag("-O1 --auto-cast all", "--auto-cast") == "all"
    assert flag("--auto-cast-type bf16", "--auto-cast") is None
    assert merged_flags("--a=1 --b", "--c").split() == ["--a=1", "--b", "--c"]


def test_applied_and_recorded() -> None:
    environ = {"HF_TOKEN": "x" * 20, "PATH": "/bin"}
    apply(settle(Job(), environ), environ)
    kept = recorded(environ)
    assert kept == {variable.name: variable.value for variable in variables(Job())}
    assert not any(re.search("TOKEN|SECRET|PASS|KEY", name) for name in NAMES)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's")
def test_arenas_are_capped_in_the_process() -> None:
    assert limit_arenas(64)


def test_a_machine_is_found_by_its_files(tmp_path: Path) -> None:
    for name in ("neuron0", "neuron1", "neuron15", "neuron_card", "null"):
        _write(tmp_path / "dev" / name)
    for name in ("rdmap0s6", "efa_1", "mlx5_0"):
        _write(tmp_path / "sys/class/infiniband" / name)
    _write(tmp_path / "sys/devices/virtual/dmi/id/product_name", "trn1.32xlarge\n")
    _write(tmp_path / "sys/module/neuron/version", "2.26.10.0\n")
    status = "Package: aws-neuronx-runtime-lib\nStatus: {} installed\nVersion: 2.30.51.0-a\n"
    _write(tmp_path / "var/lib/dpkg/status", f"Package: bash\nVersion: 5\n\n{status.format('install ok')}\n")
    _write(tmp_path / "proc/mounts", "/dev/root / ext4 rw 0 0\nfs:/ /var/tmp nfs4 rw 0 0\n")
    host = detect(tmp_path, {"XLA_USE_BF16": "1", "HF_TOKEN": "x"})
    assert (host.instance, host.devices, host.efa, host.driver) == ("trn1.32xlarge", 3, 2, "2.26.10.0")
    assert (host.runtime, host.cache_filesystem) == ("2.30.51.0-a", "nfs4")
    assert host.variables == {"XLA_USE_BF16": "1"}, "no other variable is looked at"
    assert detect(tmp_path, {"NEURON_COMPILE_CACHE_URL": "s3://b/c"}).cache_filesystem == ""
    assert detect(tmp_path, {"NEURON_CC_FLAGS": "--cache_dir=/home/x"}).cache_filesystem == "ext4"


def _write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_packages_are_found_without_importing_them() -> None:
    here = found(lambda name: {"torch": "2.9.1"}.get(name) or _absent(name))
    assert here == {"torch": "2.9.1"}


def _absent(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)
