"""Repair: the cheapest way to hold some weights better, so that the int8 model keeps a drift budget.

budget    what is measured, and its limit
yardstick measures a model against the float model on the inputs
options   the ways to hold one weight: what each costs, and the error that it leaves
workbench a float copy whose weights take the values of any option, and the real thing for the last word
search    which weights to upgrade, and how far
repair    the whole way; result: what comes out
"""

from w8a16.study.repair.budget import MEASURES, Budget
from w8a16.study.repair.options import UPGRADES
from w8a16.study.repair.repair import repair
from w8a16.study.repair.result import Choice, Point, Repair, write_repair

__all__ = ["MEASURES", "UPGRADES", "Budget", "Choice", "Point", "Repair", "repair", "write_repair"]
