"""Build the native kernels: one shared library from C++ sources, each with the flags of its instruction set.

The library includes neither Python nor torch, so one build serves every Python and torch (a py3-none
wheel). Without a C++17 compiler the package still installs and runs on the reference backend;
`w8a16 doctor` then says so. `W8A16_NATIVE=required` makes a failed build an error, `W8A16_NATIVE=off`
skips it. Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path("src/w8a16/kernels/cpu/csrc")
LIBRARY = {"win32": "w8a16_cpu.dll", "darwin": "libw8a16_cpu.dylib"}.get(sys.platform, "libw8a16_cpu.so")
REQUIRED = os.environ.get("W8A16_NATIVE") == "required"
MSVC = sys.platform == "win32"

COMMON = (
    ["/O2", "/std:c++17", "/EHsc-", "/GR-"]
    if MSVC
    # No -ffast-math: a library linked with it flushes subnormals in the whole process.
    else [
        "-O3",
        "-std=c++17",
        "-fvisibility=hidden",
        "-fno-exceptions",
        "-fno-rtti",
        "-fno-math-errno",
        "-Wall",
        "-Wextra",
    ]
)
AVX2 = ["/arch:AVX2"] if MSVC else ["-mavx2", "-mfma", "-mf16c", "-mpclmul"]
AVX512 = ["/arch:AVX512"] if MSVC else [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
FLAGS = {"variant_avx2": AVX2, "variant_avx512": AVX512}
LINK = (
    ["-static-libgcc", "-static-libstdc++", "-Wl,--strip-debug"] if sys.platform.startswith("linux") else []
)


class build_kernels(build_ext):  # the name of the command it replaces
    """Compile each source with its own flags and link a plain shared library."""

    def get_ext_filename(self, fullname: str) -> str:
        """The library's own name, without a tag for the version of Python."""
        return os.path.join(*fullname.split(".")[:-1], LIBRARY)

    def build_extension(self, ext: Extension) -> None:
        """Compile in parallel, then link; called by setuptools."""
        target = self.get_ext_fullpath(ext.name)
        Path(target).unlink(missing_ok=True)  # a failed build must not leave an old library
        if self.inplace or self.editable_mode:
            (SOURCES.parent / "lib").mkdir(exist_ok=True)
            (SOURCES.parent / "lib" / LIBRARY).unlink(missing_ok=True)
        variants = [Path(source) for source in ext.sources if Path(source).stem.startswith("variant_")]
        others = [Path(source) for source in ext.sources if Path(source) not in variants]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            built = list(pool.map(self._variant, variants))
            # A compiler too old for an instruction set leaves that variant out, and the table must know.
            absent = [
                (f"W8A16_WITHOUT_{path.stem.removeprefix('variant_').upper()}", "1")
                for path, objects in zip(variants, built, strict=True)
                if not objects
            ]
            rest = list(pool.map(lambda path: self._compile(path, absent), others))
        objects = [name for group in (*built, *rest) for name in group]
        os.makedirs(os.path.dirname(target), exist_ok=True)
        language = self.compiler.detect_language(ext.sources)
        self.compiler.link_shared_object(objects, target, extra_postargs=LINK, target_lang=language)

    def _variant(self, path: Path) -> list[str]:
        try:
            return self._compile(path, [])
        except CompileError:
            if REQUIRED:
                raise
            return []

    def _compile(self, path: Path, macros: list[tuple[str, str]]) -> list[str]:
        return self.compiler.compile(
            [str(path)],
            output_dir=self.build_temp,
            macros=macros,
            include_dirs=[str(SOURCES)],
            depends=[str(header) for header in SOURCES.glob("*.h")],
            extra_postargs=COMMON + FLAGS.get(path.stem, []),
        )


class platform_wheel(bdist_wheel):
    """A wheel for any Python 3 on this platform: the library does not depend on Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """`py3-none-<platform>`."""
        return ("py3", "none", super().get_tag()[2])


KERNELS = Extension(
    "w8a16.kernels.cpu.lib.native",
    sorted(str(path) for path in SOURCES.glob("*.cpp")),
    depends=[str(header) for header in SOURCES.glob("*.h")],
    optional=not REQUIRED,  # a failed build is then only a warning
    language="c++",
)

setup(
    ext_modules=[] if os.environ.get("W8A16_NATIVE") == "off" else [KERNELS],
    cmdclass={"build_ext": build_kernels, "bdist_wheel": platform_wheel},
)
