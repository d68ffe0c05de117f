"""Instruction data: formats, files, suites, chat templates with exact masks, preparation, packing. No torch anywhere."""
