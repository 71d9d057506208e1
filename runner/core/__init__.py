"""What every other package stands on: errors and exit codes, data types, settings, text and small file helpers."""
