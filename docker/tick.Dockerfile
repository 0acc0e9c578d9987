# One of the other images, with kubectl: for a CronJob that submits jobs from within the cluster (docs/kubernetes.md).
#   docker build --file docker/tick.Dockerfile --build-arg IMAGE=REGISTRY/trainer:native --tag trainer:tick .
ARG IMAGE
FROM registry.k8s.io/kubectl:v1.34.1 AS kubectl

FROM ${IMAGE}
COPY --from=kubectl /bin/kubectl /usr/local/bin/kubectl
