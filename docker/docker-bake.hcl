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
variable "COMPONENT" { default = "torch-memory-saver" }
# The archive's date for Ubuntu's packages, as each stack's lock has it.
variable "SNAPSHOTS" {
  default = {
    "verl-lts-cu124"    = "20250628T000000Z"
    "verl-sglang-cu124" = "20250320T000000Z"
  }
}
# Where steps are taken from and kept for the next machine; empty: this builder's own cache alone.
#   registry  CACHE_FROM=type=registry,ref=R  CACHE_TO=type=registry,ref=R,mode=max
#   a folder  CACHE_FROM=type=local,src=D     CACHE_TO=type=local,dest=D,mode=max
#   GitHub    CACHE_FROM=type=gha             CACHE_TO=type=gha,mode=max
variable "CACHE_FROM" { default = "" }
variable "CACHE_TO" { default = "" }

group "default" { targets = ["train"] }
group "matrix" { targets = ["images"] }
group "ci" { targets = ["doctor", "wheel"] }

target "common" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  platforms  = ["linux/amd64"]
  args = {
    BASE_IMAGE        = BASE_IMAGE
    ARCHS             = ARCHS
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
  cache-from = CACHE_FROM != "" ? [CACHE_FROM] : []
  cache-to   = CACHE_TO != "" ? [CACHE_TO] : []
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

target "wheel" {
  inherits = ["common"]
  target   = "wheel"
  args     = { COMPONENT = COMPONENT, FROM_SDIST = COMPONENT }
  output   = ["type=local,dest=wheelhouse"]
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
    STACK        = stack
    ENGINE       = engine
    TRAINER      = trainer
    APT_SNAPSHOT = SNAPSHOTS[stack]
  }
  tags = ["${REGISTRY}/train:${stack}-${engine}-${trainer}"]
}
