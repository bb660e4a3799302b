"""Kill training at random moments, start it again, and compare the weights bit for bit with an undisturbed run's.

    python benchmarks/kill_and_resume.py [--folders 20] [--precision bf16]

In each folder the same short run is started, its whole process group gets SIGKILL at a random moment between 20 % and
95 % of the undisturbed run's time, and the same command is given again.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WEIGHTS = Path("model/unet/diffusion_pytorch_model.safetensors")


def command(run: Path, precision: str) -> list[str]:
    options = "--train.num-steps 60 --train.checkpoint-every 10 --train.held-out-every 30 --train.sample-every 30"
    return [
        *(sys.executable, "-m", "logsnr", "train", "smoke", "--out", str(run)),
        *(*options.split(), "--train.mixed-precision", precision, "--data.resolution", "28"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=int, default=20)
    parser.add_argument("--precision", choices=["no", "bf16"], default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    equal = after_checkpoint = killed = 0
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        start = time.perf_counter()
        subprocess.run(command(undisturbed, arguments.precision), check=True, **quiet)
        seconds = time.perf_counter() - start
        expected = (undisturbed / WEIGHTS).read_bytes()
        print(f"undisturbed run: {seconds:.1f} s")
        for k in range(arguments.folders):
            run = Path(folder) / f"run-{k}"
            moment = draw.uniform(0.2, 0.95) * seconds
            process = subprocess.Popen(command(run, arguments.precision), start_new_session=True, **quiet)
            try:
                process.wait(moment)
                note = "had already ended"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                steps = [int(p.name.removeprefix("step-")) for p in run.glob("checkpoints/step-*")]
                killed += 1
                after_checkpoint += bool(steps)
                note = f"killed, last checkpoint {max(steps)}" if steps else "killed before a checkpoint"
            subprocess.run(command(run, arguments.precision), check=True, **quiet)
            same = (run / WEIGHTS).read_bytes() == expected
            equal += same
            print(f"{k + 1:>3}  after {moment:5.1f} s  {note:<32} {'equal' if same else 'DIFFERENT'}", flush=True)
    print(f"{equal} of {arguments.folders} equal; {killed} killed, {after_checkpoint} of them after a checkpoint")
    return 0 if equal == arguments.folders else 1


if __name__ == "__main__":
    sys.exit(main())
