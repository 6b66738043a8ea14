from __future__ import annotations

import pytest

from envcheck.codec import Unknown
from envcheck.host import Completed, RecordedHost
from envcheck.probes import container, environment, os_release, resources
from envcheck.probes.environment import without_credentials

UBUNTU = """# comment
PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
ID=ubuntu
ID_LIKE=debian

garbage
"""
ROCKY = 'NAME="Rocky Linux"\nVERSION_ID="8.10"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + b"\x3e\x00" + bytes(44)
BIG_ENDIAN_ELF = b"\x7fELF\x02\x02\x01" + bytes(9) + b"\x00\x03" + b"\x00\x16" + bytes(44)
LIBC = b"\x00GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\x00"
LIBSTDCXX = b"GLIBCXX_3.4\x00GLIBCXX_3.4.9\x00GLIBCXX_3.4.30\x00GLIBCXX_DEBUG\x00"
STATUS = "Name:\tcat\nUid:\t1000\t1000\t1000\t1000\nCpus_allowed_list:\t0-3,8\n"
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max processes             96365                96365                processes
Max open files            1024                 524288               files
Max locked memory         unlimited            unlimited            bytes
"""
V1_MOUNTS = """25 24 0:23 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k
35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
short
"""
V2_MOUNTS = """35 31 0:32 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate
36 31 0:33 / /dev/shm rw - tmpfs tmpfs rw
"""


def test_os_of_a_whole_host() -> None:
    recorded = RecordedHost(
        files={
            "/etc/os-release": UBUNTU,
            "/proc/sys/kernel/osrelease": "5.15.0-122-generic\n",
            "/proc/self/exe": ELF,
            "/proc/self/status": STATUS,
            "/usr/lib/x86_64-linux-gnu/libc-2.35.so": b"",
            "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30": b"",
        },
        links={
            "/lib": "/usr/lib",
            "/usr/lib/x86_64-linux-gnu/libc.so.6": "/usr/lib/x86_64-linux-gnu/libc-2.35.so",
            "/usr/lib/x86_64-linux-gnu/libstdc++.so.6": "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30",
        },
    )
    found = os_release.probe(recorded)
    assert (found.id, found.version, found.name, found.like) == ("ubuntu", "22.04", "Ubuntu 22.04.5 LTS", ("debian",))
    assert (found.kernel, found.machine, found.glibc) == ("5.15.0-122-generic", "x86_64", "2.35")
    assert (found.libstdcxx, found.user_id, found.wsl) == ("3.4.30", 1000, False)


def test_os_of_an_empty_host_is_unknown_part_by_part() -> None:
    found = os_release.probe(RecordedHost())
    assert isinstance(found.id, Unknown)
    assert isinstance(found.kernel, Unknown)
    assert isinstance(found.machine, Unknown)
    assert isinstance(found.glibc, Unknown)
    assert isinstance(found.libstdcxx, Unknown)
    assert found.user_id == 0


def test_os_release_in_its_other_place() -> None:
    found = os_release.probe(RecordedHost(files={"/usr/lib/os-release": ROCKY, "/proc/sys/kernel/osrelease": ""}))
    assert (found.id, found.version, found.like) == ("rocky", "8.10", ("rhel", "centos", "fedora"))
    assert isinstance(found.kernel, Unknown)


def test_wsl_is_seen_by_its_kernel() -> None:
    recorded = RecordedHost(files={"/proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n"})
    assert os_release.probe(recorded).wsl


@pytest.mark.parametrize(
    ("files", "commands", "expected"),
    [
        pytest.param({"/proc/self/exe": BIG_ENDIAN_ELF}, {}, "s390x", id="big-endian"),
        pytest.param({}, {("uname", "-m"): Completed(stdout="aarch64\n")}, "aarch64", id="uname"),
        pytest.param({"/proc/self/exe": b"#!"}, {("uname", "-m"): Completed(stdout="x86_64\n")}, "x86_64", id="script"),
    ],
)
def test_machine(files: dict[str, bytes], commands: dict[tuple[str, ...], Completed], expected: str) -> None:
    assert os_release.machine(RecordedHost(files=files, commands=commands)) == expected


def test_glibc_by_what_the_library_says() -> None:
    assert os_release.glibc(RecordedHost(files={"/lib64/libc.so.6": bytes(70_000) + LIBC})) == "2.36"


def test_glibc_by_getconf_where_no_library_lies_in_the_usual_places() -> None:
    answers = {("getconf", "GNU_LIBC_VERSION"): Completed(stdout="glibc 2.39\n")}
    assert os_release.glibc(RecordedHost(commands=answers)) == "2.39"


def test_glibc_of_garbage_and_of_musl() -> None:
    assert "does not say" in str(os_release.glibc(RecordedHost(files={"/lib64/libc.so.6": b"garbage"})))
    assert "musl" in str(os_release.glibc(RecordedHost(files={"/lib/ld-musl-x86_64.so.1": b""})))


def test_libstdcxx_by_the_names_inside() -> None:
    assert os_release.libstdcxx(RecordedHost(files={"/usr/lib64/libstdc++.so.6": LIBSTDCXX})) == "3.4.30"
    assert "does not say" in str(os_release.libstdcxx(RecordedHost(files={"/usr/lib64/libstdc++.so.6": b"x"})))


def test_libraries_that_cannot_be_opened() -> None:
    recorded = RecordedHost(files={"/lib64/libc.so.6/x": b"", "/lib64/libstdc++.so.6/x": b""})
    assert isinstance(os_release.glibc(recorded), Unknown)
    assert isinstance(os_release.libstdcxx(recorded), Unknown)


def test_resources_under_cgroup_v1() -> None:
    recorded = RecordedHost(
        files={
            "/proc/meminfo": "MemTotal:       131072 kB\nMemAvailable:   65536 kB\nSwapTotal:  0 kB\n",
            "/proc/self/mountinfo": V1_MOUNTS,
            "/proc/self/cgroup": "9:name=systemd:/\n5:memory:/docker/abc/inner\n4:cpu,cpuacct:/docker/abc\n0::/x\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "67108864\n",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "/proc/self/status": STATUS,
            "/proc/self/limits": LIMITS,
        },
        environ={"HOME": "/home/me"},
    )
    found = resources.probe(recorded, "10.0.0.5")
    assert found.memory_limit_bytes == 64 << 20
    assert found.memory_bytes == 128 << 20
    assert found.cpus == 2
    assert found.shm_bytes == 64 << 20
    assert (found.max_processes, found.open_files, found.locked_memory) == (96365, 1024, "unlimited")
    assert found.open_files_hard == 524288
    assert found.hostname_resolves == "10.0.0.5"
    assert {disk.role: disk.path for disk in found.disks} == {
        "tmp": "/tmp",
        "cache": "/home/me/.cache",
        "home": "/home/me",
    }


def test_resources_under_cgroup_v2_take_the_lowest_limit_around() -> None:
    recorded = RecordedHost(
        files={
            "/proc/meminfo": "MemTotal:  1048576 kB\n",
            "/proc/self/mountinfo": V2_MOUNTS,
            "/proc/self/cgroup": "0::/user.slice/job\n",
            "/proc/self/status": STATUS,
            "/sys/fs/cgroup/cgroup.controllers": "cpu memory",
            "/sys/fs/cgroup/user.slice/memory.max": "1000\n",
            "/sys/fs/cgroup/user.slice/pids.max": "4096\n",
            "/sys/fs/cgroup/user.slice/job/pids.max": "max\n",
            "/sys/class/net/eth0/address": "",
            "/sys/class/net/vethab12/address": "",
            "/sys/class/net/lo/address": "",
            "/sys/fs/cgroup/user.slice/job/memory.max": "max\n",
            "/sys/fs/cgroup/user.slice/job/cpu.max": "200000 100000\n",
            "/sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
        }
    )
    found = resources.probe(recorded, Unknown("no"))
    assert found.memory_limit_bytes == 1000
    assert found.tasks_limit == 4096
    assert found.interfaces == ("eth0", "lo")
    assert found.cpus == 2
    assert found.shm_bytes == 512 << 20


def test_resources_of_an_empty_host() -> None:
    found = resources.probe(RecordedHost(environ={"TMPDIR": "/scratch", "PWD": "/w"}), Unknown("no"))
    assert isinstance(found.memory_limit_bytes, Unknown)
    assert isinstance(found.cpus, Unknown)
    assert isinstance(found.shm_bytes, Unknown)
    assert isinstance(found.open_files, Unknown)
    assert (found.shm_free_bytes, found.interfaces) == (None, ())
    assert [disk.path for disk in found.disks] == ["/scratch", "/w"]


def test_no_limit_where_the_cgroup_has_none() -> None:
    files = {"/proc/self/mountinfo": V2_MOUNTS, "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cgroup.controllers": ""}
    recorded = RecordedHost(files=files)
    assert resources.memory_limit(recorded, resources.read_mounts(recorded)) is None


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [("rw,size=2g", "tmpfs", 2 << 30), ("rw,size=5", "tmpfs", 5), ("rw", "tmpfs", Unknown("x")), ("rw", "ext4", None)],
)
def test_shm(options: str, kind: str, expected: object) -> None:
    mount = resources.Mount(root="/", point="/dev/shm", kind=kind, options=options)
    found = resources.shm(RecordedHost(), [mount], {})
    assert found == expected if isinstance(expected, int) else isinstance(found, Unknown)


def test_a_host_without_shared_memory_has_none_of_it() -> None:
    mounts = [resources.Mount(root="/", point="/", kind="ext4", options="rw")]
    assert resources.shm(RecordedHost(), mounts, {}) == 0
    assert isinstance(resources.shm(RecordedHost(files={"/dev/shm": ""}), mounts, {}), Unknown)


def test_a_disk_that_cannot_be_asked_is_unknown() -> None:
    class Broken(RecordedHost):
        def free(self, path: str) -> tuple[int, int]:
            raise PermissionError(13, "Permission denied", path)

    shm = resources.Mount(root="/", point="/dev/shm", kind="tmpfs", options="rw")
    assert isinstance(resources.shm_free(Broken(), [shm]), Unknown)
    found = resources.disks(Broken(environ={"HOME": "/h"}))
    assert all(isinstance(disk.free_bytes, Unknown) for disk in found)


def test_hostname_by_etc_hosts_then_getent() -> None:
    files = {"/proc/sys/kernel/hostname": "node1\n", "/etc/hosts": "# x\n127.0.0.1 localhost\n\n127.0.1.1 node1 # me\n"}
    assert resources.resolved(resources.start_hostname(RecordedHost(files=files))) == "127.0.1.1"
    answer = {("getent", "ahosts", "node1"): Completed(stdout="10.1.2.3  STREAM node1\n")}
    other = RecordedHost(files={"/proc/sys/kernel/hostname": "node1"}, commands=answer)
    assert resources.resolved(resources.start_hostname(other)) == "10.1.2.3"
    silent = RecordedHost(files={"/proc/sys/kernel/hostname": "node1"})
    assert "resolves to nothing" in str(resources.resolved(resources.start_hostname(silent)))
    assert isinstance(resources.start_hostname(RecordedHost()), Unknown)


def test_jit_locks_only_where_no_build_runs() -> None:
    lock = "/home/me/.cache/flashinfer/90/cached_ops/norm/lock"
    dead = RecordedHost(files={lock: ""}, environ={"HOME": "/home/me"})
    assert resources.jit_locks(dead) == (lock,)
    alive = RecordedHost(files={lock: "", "/proc/77/comm": "ninja\n"}, environ={"HOME": "/home/me"})
    assert resources.jit_locks(alive) == ()
    assert resources.jit_locks(RecordedHost()) == ()


def test_environment_takes_what_matters_and_masks_secrets() -> None:
    found = environment.probe(
        {
            "CUDA_HOME": "/usr/local/cuda",
            "WANDB_API_KEY": "0123",
            "HF_TOKEN": "",
            "https_proxy": "http://me:secret@proxy:3128",
            "SHELL": "/bin/bash",
            "NCCL_DEBUG": "INFO",
        }
    )
    assert found == {
        "CUDA_HOME": "/usr/local/cuda",
        "WANDB_API_KEY": "set",
        "HF_TOKEN": "",
        "https_proxy": "http://***@proxy:3128",
        "NCCL_DEBUG": "INFO",
    }


def test_credentials_are_replaced_wherever_they_stand() -> None:
    assert without_credentials("a git+https://x:y@h/p b") == "a git+https://***@h/p b"
    assert without_credentials("https://github.com/a@b") == "https://github.com/a@b"


@pytest.mark.parametrize(
    ("files", "environ", "expected"),
    [
        ({}, {}, None),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({}, {"APPTAINER_CONTAINER": "/x.sif"}, "apptainer"),
        ({"/run/.containerenv": 'engine="podman"\nimage="docker.io/x:1"\n'}, {}, "podman"),
        ({"/proc/1/cgroup": "12:memory:/kubepods/burstable/x\n"}, {}, "kubernetes"),
        ({"/proc/1/cgroup": "12:memory:/docker/x\n"}, {}, "docker"),
        ({"/.dockerenv": "", "/proc/1/cgroup": "0::/\n"}, {}, "docker"),
        ({}, {"container": "lxc"}, "lxc"),
    ],
)
def test_container_kind(files: dict[str, str], environ: dict[str, str], expected: str | None) -> None:
    found = container.probe(RecordedHost(files=files, environ=environ))
    assert (found.runtime if found else None) == expected


def test_container_says_what_its_start_gave() -> None:
    files = {"/.dockerenv": "", "/dev/nvidia0": "", "/dev/nvidiactl": "", "/proc/driver/nvidia/version": "x"}
    environ = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    found = container.probe(RecordedHost(files=files, environ=environ))
    assert found is not None
    assert found.nvidia_visible_devices == "all"
    assert found.start[0] == "device nodes: /dev/nvidia0, /dev/nvidiactl"
    assert len(found.start) == 3
    podman = RecordedHost(files={"/run/.containerenv": 'image="docker.io/x:1"\n'})
    assert container.image(podman) == "docker.io/x:1"
    assert container.start(podman) == ("no NVIDIA device nodes",)
