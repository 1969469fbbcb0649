# One image with every program of Coterie, without a shell and without root.
#
# From the sources, for users:
#   docker build --tag coterie:0.1.0 .            (or: buildah build --tag coterie:0.1.0 .)
#
# From programs that are built already: only the last stage runs, and no registry is asked for the compiler's image. The
# folder holds coterie-sidecar, coterie-operator, coterie and coterie-worker; BASE has the C library that they were
# linked with, and CA certificates.
#   docker build  --build-context binaries=target/release --build-arg BASE=my/base --tag coterie:dev .
#   buildah build --build-context binaries=target/release --build-arg BASE=my/base --tag coterie:dev .

ARG BUILDER=docker.io/library/rust:1-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked \
      --bin coterie-sidecar --bin coterie-operator --bin coterie --bin coterie-worker \
 && mkdir /binaries \
 && cp target/release/coterie-sidecar target/release/coterie-operator target/release/coterie target/release/coterie-worker /binaries/

FROM scratch AS binaries
COPY --from=build /binaries/ /

FROM ${BASE}
COPY --from=binaries coterie-sidecar /coterie-sidecar
COPY --from=binaries coterie-operator /coterie-operator
COPY --from=binaries coterie /coterie
# The example application of examples/worker.
COPY --from=binaries coterie-worker /worker
# `nonroot` of the usual small bases; as a number, so that Kubernetes can tell that it is not root.
USER 65532:65532
ENTRYPOINT ["/coterie-sidecar"]
