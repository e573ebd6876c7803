"""Predictors: numbers in, numbers out; nothing here opens a file or imports the pipeline."""
