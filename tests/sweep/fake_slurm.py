"""Slurm's commands, as far as submitit calls them, for one machine without a queue: ``install`` writes them into a folder."""

import sys
from pathlib import Path

COMMON = """#!{python}
import os, signal, subprocess, sys
from pathlib import Path
jobs = Path({jobs!r})
def pid(job):
    return int((jobs / job).read_text())
def alive(job):
    try:
        return Path(f"/proc/{{pid(job)}}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
"""
COMMANDS = {
    "sbatch": """
job = str(len(list(jobs.iterdir())) + 1)
one = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NUM_NODES": "1", "JOB_ID": job}
env = {**os.environ, **{"SLURM_" + name: value for name, value in one.items()}}
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
process = subprocess.Popen(["bash", sys.argv[-1]], env=env, start_new_session=True, **quiet)
(jobs / job).write_text(str(process.pid))
print(f"Submitted batch job {job}")
""",
    "srun": """
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[1 if words[0] == "--unbuffered" else 2:]
os.execvp(words[0], words)
""",
    "sacct": """
print("JobID|State|NodeList")
for flag, job in zip(sys.argv, sys.argv[1:]):
    if flag == "-j" and (jobs / job).exists():
        print(f"{job}|{'RUNNING' if alive(job) else 'COMPLETED'}|here")
""",
    "scancel": """
for line in Path("/proc").glob("[0-9]*/environ"):
    try:
        if f"SLURM_JOB_ID={sys.argv[1]}\\0".encode() in line.read_bytes():
            os.kill(int(line.parent.name), signal.SIGTERM)
    except OSError:
        pass
""",
}


def install(folder: Path) -> Path:
    """Write the commands to ``folder / "bin"``; returns the folder in which each job leaves a file."""
    jobs = folder / "jobs"
    jobs.mkdir(parents=True)
    (folder / "bin").mkdir()
    for name, text in COMMANDS.items():
        path = folder / "bin" / name
        path.write_text(COMMON.format(python=sys.executable, jobs=str(jobs)) + text)
        path.chmod(0o755)
    return jobs
