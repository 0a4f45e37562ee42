"""A vLLM plugin for the trial: the GPU calls itself a GB10, so that vLLM loads the MoE config shipped for one."""


def register() -> None:
    """vLLM calls this in each of its processes."""
    from vllm.platforms import current_platform

    def get_device_name(cls: type, device_id: int = 0) -> str:
        return "NVIDIA GB10"

    type(current_platform).get_device_name = classmethod(get_device_name)  # type: ignore[attr-defined]
