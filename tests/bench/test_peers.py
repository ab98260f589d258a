"""bench/peers.py runs with whatever is installed, and says why the rest has no figure."""

import json
import os
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[2] / "bench" / "peers.py"


def test_it_measures_what_is_installed() -> None:
    command = [sys.executable, str(SCRIPT), "--batch", "1", "--rounds", "1", "--layers", "2", "--size", "32"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    for row in found["layers"]:
        assert {"torch fp32 nhwc", "campfire ck", "campfire tiles"} <= set(row["forward"]) & set(row["backward"])
        assert set(row["forward"]) | set(row["left_out"]) >= {"onnxruntime", "openvino fp32", "sparseprop"}
        assert max(row["forward"][f"torch fp32 {form}"]["ratio"] for form in ("nhwc", "nchw")) == 1
    assert "1x1" in found["layers"][1]["left_out"]["torch csr"]
    assert found["geomean"]["backward"]["campfire tiles"] > 0


def test_a_whole_network_beside_what_is_installed() -> None:
    command = [sys.executable, str(SCRIPT.with_name("peers_model.py")), "--model", "resnet18", "--batch", "1"]
    env = {**os.environ, "CAMPFIRE_DISPATCH": "model"}
    done = subprocess.run(
        [*command, "--size", "32", "--rounds", "1"], capture_output=True, text=True, check=True, timeout=300, env=env
    )
    found = json.loads(done.stdout)
    assert found["candidates"]["torch fp32"]["ratio"] == 1
    assert found["candidates"]["campfire tiles fp32"]["ms"] > 0
    assert set(found["candidates"]) | set(found["left_out"]) >= {"onnxruntime fp32", "openvino bf16"}
