"""safetensors files and folders of them: found, opened by checked offsets, and written.

`find_weights.py` finds the files of a folder, `index.py` reads which shard holds what, `header.py` and
`entries.py` one file's header, `strict_json.py` the text of both; `shards.py` puts them together. `disk.py`
reads and writes at offsets, `crc.py` checks; `regular.py` and `printable.py` deal with what others named.
"""
