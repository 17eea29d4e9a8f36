"""Experiment trackers: TensorBoard, Weights & Biases and MLflow get the figures of the queue.

A tracker's library may hang, leak or end its process. So each tracker runs in a process of its own (:mod:`.child`),
which the exporter starts, feeds and kills (:mod:`.process`, :mod:`.feeder`). The exporter itself imports no such
library.
"""
