"""A small config as verl's, and the facts of a GPU host, for tests of the PPO scripts."""

from __future__ import annotations

import copy
from typing import Any

from envcheck.codec import Unknown
from envcheck.facts import Driver, DriverLibrary, Facts, Gpu, Os, Python, Resources
from scripts.ppo_child import flat
from scripts.ppo_compose import Composed, Installed

CONFIG: dict[str, Any] = {
    "data": {
        "train_files": "/d/train.parquet",
        "val_files": ["/d/test.parquet"],
        "train_batch_size": 64,
        "shuffle": True,
        "val_batch_size": None,
    },
    "actor_rollout_ref": {
        "model": {"path": "/m", "override_config": {}},
        "actor": {
            "strategy": "fsdp",
            "use_dynamic_bsz": False,
            "ppo_mini_batch_size": 32,
            "ppo_micro_batch_size": None,
            "ppo_micro_batch_size_per_gpu": 8,
            "optim": {"lr": 1e-6},
        },
        "ref": {"log_prob_micro_batch_size": None, "log_prob_micro_batch_size_per_gpu": 8},
        "rollout": {
            "name": "sglang",
            "n": 1,
            "tensor_model_parallel_size": 1,
            "log_prob_micro_batch_size": None,
            "log_prob_micro_batch_size_per_gpu": 8,
        },
    },
    "critic": {"ppo_micro_batch_size": None, "ppo_micro_batch_size_per_gpu": 8},
    "trainer": {
        "n_gpus_per_node": 1,
        "nnodes": 1,
        "logger": ["console"],
        "save_freq": -1,
        "total_training_steps": 3,
        "val_before_train": True,
        "default_hdfs_dir": None,
    },
}


def composed(**changes: Any) -> Composed:
    """Give the small config with dotted keys (``__`` for the dot) set to other values."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = config
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return Composed(config=config)


def installed(verl: str = "0.4.1") -> Installed:
    """Give what an interpreter with this verl would say."""
    return Installed(
        python="3.12.3",
        versions={"verl": verl, "sglang": "0.4.6.post5", "vllm": "0.8.5.post1"},
        base=flat(CONFIG),
        directory="/v",
    )


def facts(*, gpus: int = 1, gpu_bytes: int = 85_000_000_000, memory: int = 130 << 30, **changes: Any) -> Facts:
    """Give the facts of a host with GPUs."""
    values: dict[str, Any] = {
        "os": Os(id="ubuntu", version="24.04", kernel="6.8", machine="x86_64", glibc="2.39", libstdcxx="3.4.33"),
        "resources": Resources(
            cpus=16,
            memory_bytes=memory,
            memory_available_bytes=memory,
            shm_bytes=1 << 36,
            max_processes="unlimited",
            open_files=1 << 20,
            locked_memory="unlimited",
        ),
        "driver": Driver(
            present=True,
            version="580.159.04",
            libraries=(
                DriverLibrary(name="libcuda.so.1", path="/stub/libcuda.so.1", version="12.4", kind="stub"),
                DriverLibrary(
                    name="libcuda.so.1", path="/nv/libcuda.so.1", version="580.159.04", kind="driver", loads=True
                ),
            ),
        ),
        "gpus": tuple(Gpu(name="NVIDIA H100", compute_capability="9.0", memory_bytes=gpu_bytes) for _ in range(gpus)),
        "python": Python(executable="/t/bin/python", version="3.12.3", abi="cp312", include_dir=Unknown("no headers")),
    }
    return Facts(**(values | changes))
