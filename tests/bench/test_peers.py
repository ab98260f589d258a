"""bench/peers.py runs with whatever is installed, and says why the rest has no figure."""

import json
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
