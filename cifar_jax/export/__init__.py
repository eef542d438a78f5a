"""Trained networks for other programs: PyTorch, ONNX Runtime, StableHLO.

A network is traced to a `Graph` of few operators (graph.py), which other formats are written from.
"""
