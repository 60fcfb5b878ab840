"""Read the spec off a module of your own, collect several of them into Weights, and move along their symmetries."""

import torch
from torch import Tensor, nn

import weightspace as ws


class Sine(nn.Module):
    def __init__(self, omega: float) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * x)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), Sine(30.0), nn.Linear(16, 16), Sine(1.0), nn.Linear(16, 3))


def main() -> None:
    torch.manual_seed(0)
    networks = [network() for _ in range(4)]
    spec = ws.spec_of(networks[0])
    for axis in spec.hidden:
        print(f"{axis.name}: {axis.size} neurons, {axis.activation}, omega {axis.omega:g}")
    print([param.name for param in spec.params])

    w = ws.Weights.from_state_dicts([net.state_dict() for net in networks], spec)
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ws.evaluate(w, x)[2], networks[2](x).detach(), atol=1e-4, rtol=1e-4)

    g = ws.Symmetry.sample(spec, batch=len(w), generator=torch.Generator().manual_seed(0))
    ws.testing.assert_same_function(w, g.act(w))
    networks[2].load_state_dict(g.act(w).state_dict(2))  # other weights, the same function
    torch.testing.assert_close(ws.evaluate(w, x)[2], networks[2](x).detach(), atol=1e-3, rtol=1e-3)

    try:
        ws.spec_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    except ValueError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    main()
