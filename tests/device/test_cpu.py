"""What is read from /proc/cpuinfo; the texts are what the kernels of these machines print, without what is not read."""

from __future__ import annotations

import platform

import pytest

from edge_assistant.device.boards import boards
from edge_assistant.device.cpu import Cpu, parse_cpuinfo, this_cpu

ARM_CORE = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: {part}
CPU revision\t: 1

"""
TAIL = "Revision\t: d04170\nSerial\t\t: 0\nModel\t\t: A board with several cores\n"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
A72 = "fp asimd evtstrm crc32 cpuid"
V3AE = A76 + " sve i8mm bf16"
X86_CORE = """\
processor\t: {number}
vendor_id\t: GenuineIntel
model name\t: A processor
physical id\t: 0
core id\t\t: {core}
flags\t\t: fpu sse2 {features}

"""


def arm(*cores: tuple[str, str]) -> Cpu:
    """Read the text of a machine by the part and the features of each core."""
    blocks = (
        ARM_CORE.format(number=number, part=part, features=features) for number, (part, features) in enumerate(cores)
    )
    return parse_cpuinfo("".join(blocks) + TAIL, "aarch64")


def x86(features: str, cores: tuple[int, ...] = (0, 1)) -> Cpu:
    blocks = (X86_CORE.format(number=number, core=core, features=features) for number, core in enumerate(cores))
    return parse_cpuinfo("".join(blocks), "x86_64")


@pytest.mark.parametrize(
    ("features", "found"), [(A72, ()), (A76, ("asimddp",)), (V3AE, ("asimddp", "i8mm"))], ids=["A72", "A76", "V3AE"]
)
def test_arm_s_features_decide_whether_it_multiplies_int8(features: str, found: tuple[str, ...]) -> None:
    cpu = arm(*[("0xd0b", features)] * 4)
    assert (cpu.model, cpu.features, cpu.cores) == ("0x41 0xd0b", found, 4)
    assert cpu.multiplies_int8 is ("asimddp" in found)
    assert (cpu.float32_warning is None) is cpu.multiplies_int8


def test_what_one_core_lacks_none_has() -> None:
    cpu = arm(("0xd0b", A76), ("0xd08", A72))
    assert (cpu.model, cpu.features, cpu.cores) == ("0x41 0xd08, 0x41 0xd0b", (), 2)


@pytest.mark.parametrize(
    ("features", "found"),
    [
        ("avx", ()),
        ("avx avx2", ("avx2",)),
        ("avx2 avx_vnni", ("avx2", "avx_vnni")),
        ("avx2 avx512f avx512_vnni", ("avx2", "avx512_vnni")),
    ],
)
def test_x86_s_features_decide_alike(features: str, found: tuple[str, ...]) -> None:
    cpu = x86(features)
    assert (cpu.model, cpu.features) == ("A processor", found)
    assert cpu.multiplies_int8 is ("avx2" in found)


def test_two_threads_of_a_core_are_one_core() -> None:
    assert x86("avx2", cores=(0, 1, 0, 1)).cores == 2


def test_the_warning_names_what_is_lacking_and_the_processor() -> None:
    warning = arm(("0xd08", A72)).float32_warning
    assert warning is not None
    assert "(0x41 0xd08) lacks asimddp" in warning
    assert "\n" not in warning


def test_text_without_processors_is_no_error() -> None:
    assert parse_cpuinfo("", "riscv64") == Cpu("riscv64", "unknown", (), 1)
    assert parse_cpuinfo("", "riscv64").float32_warning is None


def test_processors_that_differ_are_told_apart() -> None:
    cpus = [arm(("0xd0b", A76)), arm(("0xd0b", V3AE)), arm(*[("0xd0b", A76)] * 2), x86("avx2"), x86("avx2 avx_vnni")]
    assert len({str(cpu) for cpu in cpus}) == len(cpus)


def test_boards_with_dot_products_are_those_whose_processor_multiplies_int8() -> None:
    for board in boards():
        cpu = Cpu(board.machine, board.cpu, board.cpu_features, 4)
        assert cpu.multiplies_int8 is board.has_dot_products


def test_this_processor_is_read() -> None:
    assert this_cpu().machine == platform.machine()
    assert this_cpu().cores >= 1
    assert this_cpu().model != "unknown"
