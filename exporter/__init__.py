"""The TransferQueue exporter: a process beside a training run that makes its data plane visible."""
