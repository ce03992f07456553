"""Commands that measure: benchmark, compare, reproduce and the demo."""
