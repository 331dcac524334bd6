"""Commands that stand where a camera would: they post images from a folder."""
