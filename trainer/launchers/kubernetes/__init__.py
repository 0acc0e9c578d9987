"""Kubernetes: JobSet and Kubeflow Trainer's TrainJob through kubectl, and CronJobs for commands on a schedule."""
