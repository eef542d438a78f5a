"""Corrupt images, after Hendrycks & Dietterich 2019."""
