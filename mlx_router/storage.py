"""Fields of a base's config.json that say how its weights are stored."""

QUANTIZED = ("quantization", "quantization_config")
# The weights are quantized to be stored, and widened to be computed with.
WIDENED = "widen_on_load"
STORAGE = (*QUANTIZED, WIDENED)
