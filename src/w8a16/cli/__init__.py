"""The command line: `w8a16 quantize | inspect | verify | dequantize | bench | doctor`.

`app.py` holds the commands' signatures and `run.py` turns errors into messages and exit codes; each
command's work is in a file of its own.
"""

from w8a16.cli.run import main

__all__ = ["main"]
