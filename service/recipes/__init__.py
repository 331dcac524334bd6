"""What a quality engineer sets for a product: limits, masks, metadata; and what a change of them would do."""
