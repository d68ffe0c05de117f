"""The formats of instruction rows, one file each: alpaca, sharegpt, messages, text."""
