"""The table of nftables that keeps strangers from the ports of dgx-vllm."""
