"""The demo: a small, real training loop over a real TransferQueue, with the exporter beside it.

The processes: the *supervisor* (:mod:`exporter.demo.supervisor`, what the command line runs) shows the table and
ends everything; the *cluster* process (:mod:`exporter.demo.cluster`) owns Ray, TransferQueue and the actors; the
exporter is the ordinary ``tq-exporter run``. Importing the modules loads no Ray and no torch.
"""
