"""The page names every weight that stays float, with its reason."""

from zoo.page import write_page
from zoo.result import OK, Result


def test_every_remainder_is_listed(tmp_path):
    remaining = (
        ("layers.0.bias_stack", (4, 64), "bias"),
        ("layers.1.bias_stack", (4, 64), "bias"),
        ("layers.1.wide.bias_stack", (4, 128), "bias"),
        ("token", (1, 1, 64), "vector"),
    )
    results = [
        Result("mixture", "mixture-of-experts", runs=OK, coverage=0.98912, remaining=remaining),
        Result("plain", "plain", runs=OK, coverage=1.0, published_coverage=1.0),
    ]
    write_page(results, {}, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| `bias` | 3 | a bias is added in float32; int8 would save next to nothing |" in text
    assert "| mixture | 98.91% |  | `bias` | `layers.*.bias_stack` [4, 64] (2 times), " in text
    assert "`layers.*.wide.bias_stack` [4, 128] |" in text
    assert "| mixture | 98.91% |  | `vector` | `token` [1, 1, 64] |" in text
    assert "| plain | 100.00%" not in text
