"""The TransferQueue exporter: a process that runs beside a training job and exports metrics of its data plane."""
