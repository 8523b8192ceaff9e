"""Runs a compiled GPU kernel without a GPU: an interpreter of the PTX that Mosaic GPU emits.

Only what the compositing kernels contain: one block of 128 threads, branches that all threads take
alike (checked), shuffles and barriers inside such branches. Threads therefore advance together and
a barrier has nothing to do, so races are not found; addresses, layouts, shuffles and arithmetic
are. Approximate instructions are exact here. An unknown instruction raises KeyError.

Vocabulary: a register is an array over the 128 threads.
"""

from __future__ import annotations

import re

import numpy as np

THREADS = 128
SHARED_BASE = 1 << 32
SHARED_BYTES = 1 << 16
ARRAY_SPACING = 1 << 40
TYPES = {
    "f32": np.float32, "b32": np.uint32, "u32": np.uint32, "s32": np.int32,
    "b64": np.uint64, "u64": np.uint64, "s64": np.int64, "pred": np.bool_,
}  # fmt: skip


def _fma(a, b, c):
    wide = np.float64
    return (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(np.float32)


def _fma_down(a, b, c):
    wide = a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)
    near = wide.astype(np.float32)
    return np.where(near > wide, np.nextafter(near, np.float32(-np.inf)), near)


def _shift_left(a, b):
    return a << b.astype(a.dtype)


def _shift_right(a, b):
    return a >> b.astype(a.dtype)


def _bit_field(a, b, c):
    return (a >> b) & ((np.uint32(1) << c) - np.uint32(1))


ARITHMETIC = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "abs": np.abs, "max": np.maximum, "min": np.minimum, "fma": _fma, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "shl": _shift_left, "shr": _shift_right,
    "bfe": _bit_field, "mov": np.copy, "ex2": np.exp2, "not": np.invert, "rem": np.remainder,
    "cvta": np.copy,
}  # fmt: skip
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


class Block:
    """One block of threads of a kernel, on arrays in host memory."""

    def __init__(self, text: str, arrays: list[np.ndarray], block: int):
        self.arrays = [array.reshape(-1).view(np.uint8) for array in arrays]
        self.shared = np.zeros(SHARED_BYTES, np.uint8)
        # Per word of shared memory: the last span and thread that wrote it, and that read it.
        self.written = np.full((SHARED_BYTES // 4, 2), -1)
        self.read = np.full((SHARED_BYTES // 4, 2), -1)
        self.span = 0
        self.registers: dict[str, np.ndarray] = {}
        self.block = block
        self.lines, self.labels = _instructions(text)

    def run(self) -> None:
        """Runs until `ret`; arrays are changed in place."""
        position = 0
        with np.errstate(all="ignore"):
            while True:
                guard, opcode, operands = self.lines[position]
                position += 1
                taken = True if guard is None else self._uniform(guard)
                if opcode == "ret" and taken:
                    return
                if opcode.startswith("bra"):
                    position = self.labels[operands[0]] if taken else position
                elif taken:
                    self._execute(opcode.split("."), operands)

    def _uniform(self, guard: str) -> bool:
        values = self.registers[guard.lstrip("!")]
        if values.any() != values.all():
            raise AssertionError("threads of a block part ways")
        return bool(values[0]) != guard.startswith("!")

    def _read(self, operand: str, dtype) -> np.ndarray:
        if operand.startswith("%"):
            special = {"%tid.x": np.arange(THREADS), "%ctaid.x": np.full(THREADS, self.block)}
            values = special.get(operand, self.registers.get(operand))
            if values is None:
                raise KeyError(operand)
            if values.dtype == np.bool_ or operand in special:
                return values.astype(dtype)
            wanted = np.dtype(dtype).itemsize
            if values.dtype.itemsize > wanted:
                values = values.astype(np.uint64).astype(np.uint32)
            return values.view(dtype)
        if operand.startswith("0f"):
            return np.full(THREADS, int(operand[2:], 16), np.uint32).view(dtype)
        if operand == "__dynamic_shmem__0":
            return np.full(THREADS, SHARED_BASE, dtype)
        return np.full(THREADS, int(operand, 0)).astype(dtype)

    def _write(self, operand: str, values: np.ndarray) -> None:
        unsigned = {4: np.uint32, 8: np.uint64}.get(values.dtype.itemsize)
        values = np.ascontiguousarray(values)
        self.registers[operand] = values if unsigned is None else values.view(unsigned)

    def _execute(self, opcode: list[str], operands: list[str]) -> None:
        name, dtype = opcode[0], TYPES.get(opcode[-1], np.uint32)
        if name in ("bar", "fence"):
            self.span += name == "bar"
            return
        if name in ("ld", "st"):
            return self._transfer(opcode, operands, dtype)
        if name == "elect":  # The least thread of each warp.
            return self._write(operands[1], np.arange(THREADS) % 32 == 0)
        if name == "shfl":
            return self._write(operands[0], self._shuffle(opcode[2], operands))
        if name == "setp":
            a, b = (self._read(x, dtype) for x in operands[1:3])
            return self._write(operands[0], COMPARISONS[opcode[1]](a, b))
        if name == "selp":
            a, b = (self._read(x, dtype) for x in operands[1:3])
            return self._write(operands[0], np.where(self.registers[operands[3]], a, b))
        if name == "cvt":
            return self._write(operands[0], self._convert(opcode, operands[1]))
        if name in ("mul", "mad") and opcode[1] == "wide":
            wide = np.int64 if opcode[2] == "s32" else np.uint64
            a, b = (self._read(x, dtype).astype(wide) for x in operands[1:3])
            extra = self._read(operands[3], wide) if name == "mad" else wide(0)
            return self._write(operands[0], a * b + extra)
        values = [self._read(x, dtype) for x in operands[1:]]
        if opcode[1] == "hi":
            result = (values[0].astype(np.int64) * values[1].astype(np.int64)) >> 32
        elif name == "mad":
            result = values[0] * values[1] + values[2]
        elif name == "fma" and opcode[1] == "rm":
            result = _fma_down(*values)
        elif name in ("max", "min") and opcode[1] != "NaN":
            result = {"max": np.fmax, "min": np.fmin}[name](*values)
        else:
            result = ARITHMETIC[name](*values)
        self._write(operands[0], result.astype(dtype))

    def _convert(self, opcode: list[str], operand: str) -> np.ndarray:
        target, source = TYPES[opcode[-2]], TYPES[opcode[-1]]
        values = self._read(operand, source)
        if "sat" in opcode:
            values = np.clip(values, 0.0, 1.0)
        return values.astype(target)

    def _shuffle(self, mode: str, operands: list[str]) -> np.ndarray:
        values, lane = self._read(operands[1], np.uint32), np.arange(THREADS)
        argument = self._read(operands[2], np.int32)
        source = {"bfly": lane ^ argument, "idx": lane // 32 * 32 + argument}[mode]
        return values[source]

    def _transfer(self, opcode: list[str], operands: list[str], dtype) -> None:
        size = np.dtype(dtype).itemsize
        if opcode[1] == "param":
            number = int(re.search(r"param_(\d+)", operands[1]).group(1))
            base = np.full(THREADS, (number + 1) * ARRAY_SPACING, np.uint64)
            return self._write(operands[0], base)
        place = operands[1] if opcode[0] == "ld" else operands[0]
        names = (operands[0] if opcode[0] == "ld" else operands[1]).strip("{}").split(",")
        base, _, offset = place.strip("[]").partition("+")
        start = self._read(base, np.uint64).astype(np.int64) + int(offset or "0")
        if (start % (size * len(names))).any():
            raise AssertionError(f"misaligned {opcode}")
        for index, name in enumerate(names):
            memory, address = self._memory(start + index * size)
            if address.min() < 0 or address.max() + size > memory.size:
                raise AssertionError(f"out of bounds {opcode} {address.min()} {address.max()}")
            if memory is self.shared:
                self._watch(opcode[0] == "st", address // 4)
            cells = memory.view(dtype)
            if opcode[0] == "ld":
                self._write(name.strip(), cells[address // size])
            else:
                cells[address // size] = self._read(name.strip(), dtype)

    def _watch(self, writes: bool, words: np.ndarray) -> None:
        """Raises on a race and records an access of all threads to their words."""
        threads = np.arange(THREADS)
        other, own = (self.read, self.written) if writes else (self.written, self.read)
        if ((other[words, 0] == self.span) & (other[words, 1] != threads)).any():
            raise AssertionError("threads race for shared memory")
        # A word that two threads touch belongs to neither.
        own[words] = np.stack([np.full(THREADS, self.span), threads], axis=1)
        shared = own[words, 1] != threads
        own[words[shared], 1] = -1

    def _memory(self, address: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        number = int(address[0] // ARRAY_SPACING)
        if number == 0:
            return self.shared, address - SHARED_BASE
        return self.arrays[number - 1], address - number * ARRAY_SPACING


def _instructions(text: str):
    """Instructions (guard, opcode, operands) of the only kernel, and where labels point."""
    lines, labels = [], {}
    body = text[text.index("{\n", text.index(".entry")) :]
    for raw in body.splitlines():
        line = raw.split("//")[0].strip()
        label = re.fullmatch(r"(\$L\w+):", line)
        if label:
            labels[label.group(1)] = len(lines)
        found = re.fullmatch(r"(?:@(!?%p\d+)\s+)?([a-z][\w.:]*)\s*(.*);", line)
        if found:
            operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,|\s]+", found.group(3))
            lines.append((found.group(1), found.group(2), operands))
    return lines, labels
