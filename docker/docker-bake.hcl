# docker buildx bake -f docker/docker-bake.hcl              the default stack's training image
# docker buildx bake -f docker/docker-bake.hcl matrix       stacks x engines x trainers
# PREBUILT=./wheelhouse docker buildx bake -f docker/docker-bake.hcl train-prebuilt     no compiler starts
variable "BASE_IMAGE" {
  default = "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04@sha256:622e78a1d02c0f90ed900e3985d6c975d8e2dc9ee5e61643aed587dcf9129f42"
}
variable "REGISTRY" { default = "envcheck" }
variable "ARCHS" { default = "8.0;9.0" }
variable "PREBUILT" { default = "wheelhouse" }
variable "SOURCE_DATE_EPOCH" { default = "1735689600" }
variable "CACHE" { default = "" } # registry reference; empty: no cache is exported

group "default" { targets = ["train"] }
group "matrix" { targets = ["images"] }
group "ci" { targets = ["doctor", "toolchain"] }

target "common" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  platforms  = ["linux/amd64"]
  args = {
    BASE_IMAGE        = BASE_IMAGE
    ARCHS             = ARCHS
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
  cache-from = CACHE != "" ? ["type=registry,ref=${CACHE}", "type=gha"] : ["type=local,src=.cache/buildx"]
  cache-to   = CACHE != "" ? ["type=registry,ref=${CACHE},mode=max"] : []
}

target "toolchain" {
  inherits = ["common"]
  target   = "toolchain"
  tags     = ["${REGISTRY}/toolchain:cu124"]
}

target "doctor" {
  inherits = ["common"]
  target   = "doctor"
  tags     = ["${REGISTRY}/doctor:latest"]
}

target "train" {
  inherits = ["common"]
  target   = "train"
  tags     = ["${REGISTRY}/train:verl-sglang-cu124-sglang-fsdp"]
}

target "train-prebuilt" {
  inherits = ["train"]
  contexts = { prebuilt = PREBUILT }
}

target "dev" {
  inherits = ["common"]
  target   = "builder"
  tags     = ["${REGISTRY}/dev:cu124"]
}

target "images" {
  inherits = ["common"]
  name     = "${stack}-${engine}-${trainer}"
  matrix = {
    stack   = ["verl-sglang-cu124", "verl-lts-cu124"]
    engine  = ["sglang", "vllm"]
    trainer = ["fsdp", "megatron"]
  }
  target = "train"
  args = {
    STACK   = stack
    ENGINE  = engine
    TRAINER = trainer
  }
  tags = ["${REGISTRY}/train:${stack}-${engine}-${trainer}"]
}
