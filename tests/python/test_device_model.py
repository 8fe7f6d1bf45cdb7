# SPDX-License-Identifier: Apache-2.0
"""Device models: every figure has a source; a run with one says so; the driver takes them all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from project import Project
from suite import device_model, yaml_source
from suite.device_model import FIGURES, DeviceModel, find_model, model_names
from suite.errors import BadInput

NAMES = [name for name in model_names() if name != "none"]


def test_the_models_are_those_of_the_command_line() -> None:
    assert model_names() == ["none", "cxl", "nvdimm-n", "optane"]
    assert find_model("none") is None


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_that_is_cited(name: str) -> None:
    model = find_model(name)
    assert model is not None
    assert set(model.figures) == set(FIGURES)
    assert {figure.source for figure in model.figures.values()} == set(model.sources)
    assert model.argument.startswith(f"name={name},fence_ns=")
    assert model.argument.count("=") == 1 + len(FIGURES)


def test_optane_s_figures_follow_from_what_they_cite() -> None:
    model = find_model("optane")
    assert model is not None
    values = {name: figure.value for name, figure in model.figures.items()}
    assert values["media_write_ns"] == round(256 / 2.3)
    assert values["read_ns"] == 305 - 101
    assert values["read_buffered_ns"] == 169 - 81
    assert values["unit_bytes"] * values["units"] == 16 << 10


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fence_ns:", "fense_ns:", "missing: fence_ns"),
        ("source: flatstore", "source: hearsay", "'hearsay'"),
        ("value: 5\n", "value: -5\n", "figures.fence_ns.value"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = (device_model.FOLDER / "optane.yaml").read_text()
    assert old in text
    (tmp_path / "optane.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=expected):
        yaml_source.load(tmp_path / "optane.yaml", DeviceModel)


def test_an_unknown_model_is_named_with_those_there_are(project: Project) -> None:
    project.allocator("durable")
    result = project.bench("--pm-model", "optan")
    assert result.returncode == 2
    assert "did you mean 'optane'" in result.stderr


def test_a_run_with_a_model_is_labelled_and_leaves_out_whom_it_can_t_slow(project: Project) -> None:
    project.allocator("seen", capabilities=["observable"])
    project.allocator("unseen")
    project.allocator("dram", kind="volatile")
    result = project.bench("--pm-model", "optane", "-w", "larson", "--survival-cases", "0")
    assert result.returncode == 0, result.stderr
    assert "device model optane, EMULATED" in " ".join(result.stdout.split())
    run = project.run_document()
    assert run["config"]["pm_model"]["emulated"] is True
    assert run["config"]["pm_model"]["figures"]["media_write_ns"] == 111
    devices = {sample["allocator"]: sample["raw"]["device"] for sample in run["samples"]}
    assert set(devices) == {"seen", "dram"}
    assert devices["seen"]["name"] == "optane"
    assert any("unseen" in note and "optane" in note for note in run["environment"]["notes"])


def test_without_a_model_nothing_is_delayed(project: Project) -> None:
    project.allocator("durable")
    project.bench("-w", "larson", "--survival-cases", "0")
    run = project.run_document()
    assert run["config"].get("pm_model") is None
    assert all(sample["raw"]["device"] is None for sample in run["samples"])


@pytest.mark.native
def test_the_driver_refuses_to_pass_off_what_it_can_t_delay(
    native_build: Path, tmp_path: Path
) -> None:
    adapter = native_build / "allocators" / "boost-interprocess.so"
    if not adapter.is_file():
        pytest.skip(f"{adapter} was not built: it needs g++ and libboost-dev")
    model = find_model("optane")
    assert model is not None
    command = [
        native_build / "workloads" / "nvdrive", "bench", "--workload", "larson",
        "--adapter", adapter, "--heap", tmp_path / "heap", "--device", model.argument,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, answer["where"]) == (3, "device")
    assert "can't be observed" in answer["message"]


@pytest.mark.native
@pytest.mark.parametrize("name", NAMES)
def test_the_driver_takes_every_model(native_build: Path, tmp_path: Path, name: str) -> None:
    model = find_model(name)
    assert model is not None
    command = [
        native_build / "workloads" / "nvdrive", "bench", "--workload", "larson",
        "--adapter", native_build / "allocators" / "nvmalloc.so", "--heap", tmp_path / "heap",
        "--heap-size", "64M", "--warmup", "0.01", "--seconds", "0.05", "--latency-seconds", "0",
        "--device", model.argument,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    device = json.loads(done.stdout.splitlines()[-1])["device"]
    assert device["name"] == name
    assert device["figures"] == {key: figure.value for key, figure in model.figures.items()}
    assert device["media_writes"] > 0
    slow = any(figure.value for key, figure in model.figures.items() if key.endswith("_ns"))
    assert (device["delayed_ns"] > 0) == slow
