"""What the network predicts, and how each prediction becomes every other.

Whatever it is, it is a linear combination p = a x₀ + b ε of the datum and the noise, whose factors follow from the
schedule; and x_t = α x₀ + σ ε is another one. Two equations give the two unknowns:

    x₀ = (b x_t − σ p) / d,    ε = (α p − a x_t) / d,    d = α b − σ a.
"""

from typing import Literal, get_args

from torch import Tensor

from genzoo.zoo.diffusion.schedules import Noise

#: "epsilon": ε (Ho et al. 2020); "x0": the datum; "v": (α ε − σ x₀) / √(α² + σ²) (Salimans & Ho 2022; on a schedule
#: with α = 1 the F of Karras et al. 2022 with the sign reversed); "score": ∇ ln p(x_t | x₀) = −ε/σ (Song & Ermon
#: 2019); "velocity": dx_t/dt = α̇ x₀ + σ̇ ε (Lipman et al. 2023)
Prediction = Literal["epsilon", "x0", "v", "score", "velocity"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


def coefficients(prediction: Prediction, noise: Noise) -> tuple[Tensor | float, Tensor | float]:
    """(a, b) of the prediction a x₀ + b ε."""
    if prediction == "epsilon":
        return 0.0, 1.0
    if prediction == "x0":
        return 1.0, 0.0
    if prediction == "v":
        norm = (noise.alpha.square() + noise.sigma.square()).sqrt()
        return -noise.sigma / norm, noise.alpha / norm
    if prediction == "score":
        return 0.0, -1 / noise.sigma
    if prediction == "velocity":
        return noise.d_alpha, noise.d_sigma
    raise ValueError(f"prediction={prediction!r}: choose one of {', '.join(PREDICTIONS)}.")


def predicted(prediction: Prediction, noise: Noise, x0: Tensor, epsilon: Tensor) -> Tensor:
    """p = a x₀ + b ε: what the network is to say."""
    a, b = coefficients(prediction, noise)
    return a * x0 + b * epsilon


def to_x0(prediction: Prediction, noise: Noise, x: Tensor, p: Tensor) -> Tensor:
    """The datum that the prediction p for x_t implies."""
    a, b = coefficients(prediction, noise)
    return (b * x - noise.sigma * p) / (noise.alpha * b - noise.sigma * a)


def to_epsilon(prediction: Prediction, noise: Noise, x: Tensor, p: Tensor) -> Tensor:
    """The noise that the prediction p for x_t implies."""
    a, b = coefficients(prediction, noise)
    return (noise.alpha * p - a * x) / (noise.alpha * b - noise.sigma * a)


def convert(source: Prediction, target: Prediction, noise: Noise, x: Tensor, p: Tensor) -> Tensor:
    """The prediction p for x_t, said as another one."""
    return predicted(target, noise, to_x0(source, noise, x, p), to_epsilon(source, noise, x, p))


def error_factor(prediction: Prediction, noise: Noise) -> Tensor:
    """‖p − p̂‖² / ‖x₀ − x̂₀‖² = (d/σ)²: how an error in the datum shows in the prediction, x_t being given."""
    a, b = coefficients(prediction, noise)
    return ((noise.alpha * b - noise.sigma * a) / noise.sigma).square()
