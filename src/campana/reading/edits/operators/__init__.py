"""One operator a file; `campana.reading.edits.operator` is their protocol."""
