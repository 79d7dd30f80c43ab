"""int8 weights that other libraries stored, taken over with their codes as they are."""

from w8a16.integrations.foreign_int8.found import has_int8
from w8a16.integrations.foreign_int8.plan import ImportPlan, plan_import
from w8a16.integrations.foreign_int8.write import import_int8, imported_bytes, write_import

__all__ = ["ImportPlan", "has_int8", "import_int8", "imported_bytes", "plan_import", "write_import"]
