"""The demo: a small, real training loop over a real TransferQueue, with the exporter beside it.

Its processes: the *supervisor* (:mod:`exporter.demo.supervisor`, run by the command line) shows the table and stops
everything; the *cluster* process (:mod:`exporter.demo.cluster`) owns Ray, TransferQueue and the actors; the exporter is
the ordinary ``tq-exporter run``. Importing the modules loads no Ray and no torch.
"""
