"""What arXiv 2010.16335's journal follow-up reports: Pacheco, Couto and Simeone, JNCA 217 (2023) 103679.

Read from the vector figures in the authors' repository, early_exit_calibration; in each triple: no calibration, one
temperature for all exits fitted on whichever exit fired, one for each exit fitted on what exited there.
"""

SOURCE = "JNCA 217 (2023) 103679, read from the vector figures of its repository"
Triple = tuple[float, float, float]

# Calibration error in percent over all samples of branches 2 to 5.
ECE: dict[str, tuple[Triple | None, ...]] = {
    "MobileNetV2, Caltech-256": ((1.27, 5.85, 4.31), (5.05, 1.63, 4.07), (5.19, 2.01, 2.29), (7.82, 4.44, 6.09)),
    "ResNet18, Caltech-256": ((8.25, 2.26, 2.28), (10.58, 3.74, 3.27), (5.39, 1.43, 1.70), (6.30, 2.88, 4.02)),
    "VGG16, Caltech-256": ((11.48, 2.42, 5.80), (12.34, 4.10, 4.42), (7.45, 1.34, 1.25), (5.70, 1.60, 1.50)),
    "ResNet152, Caltech-256": ((6.45, 1.36, 2.05), (4.97, 0.91, 4.61), (5.02, 1.02, 4.55), (6.10, 1.33, 4.38)),
    "ResNet152, CIFAR-100": ((1.67, 11.88, 2.47), (3.57, 1.88, 12.94), (4.56, 1.76, 12.90), (6.68, 6.00, 11.56)),
    "ResNet18, CIFAR-100": ((2.70, 2.44, 13.17), None, (3.36, 2.23, 1.24), (9.75, 2.55, 6.17)),
    "VGG16, CIFAR-100": ((4.96, 2.67, 2.64), (5.24, 2.08, 4.58), (2.72, 1.65, 3.02), (3.31, 1.26, 4.09)),
}
# MobileNetV2 on Caltech-256, three edge exits, the first never asked, p_tar .8; the plateau with a cloud in Ohio.
EFFECT: dict[str, Triple] = {
    "edge_probability": (0.164, 0.096, 0.122),
    "edge_accuracy": (0.870, 0.918, 0.898),
    "outage": (0.108, 0.042, 0.066),
    "accuracy": (0.797, 0.816, 0.808),
    "plateau": (0.53, 0.26, 0.39),
}
