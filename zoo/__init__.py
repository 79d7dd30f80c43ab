"""The zoo: tiny random models of many architectures, each quantized and checked.

Run it from the root of the repository: `python -m zoo`, `python -m zoo --only 'bert*'`.
"""
