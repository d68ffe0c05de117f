"""schema"""
REPORT_SCHEMA = {}
