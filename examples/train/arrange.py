"""Gives each checkpoint of mlx_lm.lora a folder of its own, checkpoints/STEP, that is an adapter.

mlx_lm.lora writes all of them into one folder, as 0000015_adapters.safetensors and so on.
"""

import argparse
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path, help="the folder that mlx_lm.lora wrote")
    parser.add_argument("out", type=Path, help="the folder to write to")
    args = parser.parse_args()

    for weights in sorted(args.trained.glob("*_adapters.safetensors")):
        step = int(weights.name.split("_")[0])
        folder = args.out / "checkpoints" / str(step)
        folder.mkdir(parents=True)
        shutil.copyfile(weights, folder / "adapters.safetensors")
        shutil.copyfile(args.trained / "adapter_config.json", folder / "adapter_config.json")
        print(f"checkpoints/{step}")


if __name__ == "__main__":
    main()
