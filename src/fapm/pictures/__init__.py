"""Files, bytes and arrays to RGB pictures: decoding, sizes, masks."""
