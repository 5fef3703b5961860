"""What do papers report? Published tables with their protocols, to stand beside one's own figures, marked as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from generators.errors import UnknownName


@dataclass(frozen=True)
class PublishedTable:
    """A table as it was printed."""

    key: str
    title: str
    source: str
    """Where it was printed: authors, year, arXiv id or repository, number of the table."""
    protocol: str
    """What the figures mean: images, resolution, backbones. Figures of another protocol do not compare."""
    read_from: str
    """How the figures came here: from the publication itself, or at second hand."""
    columns: tuple[str, ...]
    """Names with their arrows."""
    rows: Mapping[str, tuple[str, ...]]
    """Figures of a method in the order of the columns, digit for digit as printed; nothing where none was."""

    def __post_init__(self) -> None:
        for method, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"{self.key}: {method} has {len(values)} figures for {len(self.columns)} columns")

    def as_json(self) -> dict[str, Any]:
        """Give what JSON shows: figures as numbers, null where none was printed, marked as published."""
        numbers = {method: [float(cell) if cell else None for cell in cells] for method, cells in self.rows.items()}
        return asdict(self) | {"rows": numbers, "published": True}

    def as_markdown(self) -> str:
        """Lay the table out, with its source and protocol."""
        lines = [f"### {self.title} (published)", "", "| method | " + " | ".join(self.columns) + " |"]
        lines.append("| --- " * (len(self.columns) + 1) + "|")
        lines += [f"| {method} | {' | '.join(cells)} |" for method, cells in self.rows.items()]
        lines += ["", f"Source: {self.source}", f"Protocol: {self.protocol}", f"Read from: {self.read_from}"]
        return "\n".join(lines)


_CELEBA_HQ_PAPERS = (
    "CelebA-HQ test split (2,824 faces), 256 px, images in [-1, 1]; LPIPS-AlexNet; ID: cosine of CurricularFace's"
    " descriptors after MTCNN; seconds an image on a GPU"
)

PUBLISHED = {
    table.key: table
    for table in [
        PublishedTable(
            "hyperstyle",
            "Reconstruction of faces: optimisation, pSp, e4e, ReStyle, HyperStyle",
            "Alaluf et al. 2022, HyperStyle, arXiv:2111.15666, table of quantitative reconstruction results",
            _CELEBA_HQ_PAPERS,
            "a transcription of the table",
            ("ID ↑", "MS-SSIM ↑", "LPIPS ↓", "L2 ↓", "seconds ↓"),
            {
                "StyleGAN2 optimisation (W+)": ("0.78", "0.90", "0.09", "0.020", "227.55"),
                "PTI": ("0.85", "0.92", "0.09", "0.015", "55.715"),
                "IDInvert": ("0.18", "0.68", "0.22", "0.061", "0.04"),
                "pSp": ("0.56", "0.76", "0.17", "0.034", "0.106"),
                "e4e": ("0.50", "0.72", "0.20", "0.052", "0.106"),
                "ReStyle-pSp": ("0.66", "0.79", "0.13", "0.030", "0.366"),
                "ReStyle-e4e": ("0.52", "0.74", "0.19", "0.041", "0.366"),
                "HyperStyle": ("0.76", "0.84", "0.09", "0.019", "1.234"),
            },
        ),
        PublishedTable(
            "psp",
            "Reconstruction of faces: pSp and its ablation",
            "Richardson et al. 2021, pSp, arXiv:2008.00951, tables of quantitative results and of the encoder's ablation",
            _CELEBA_HQ_PAPERS,
            "memory; only the row of pSp was compared with a copy (HyperStyle's table). Look into the paper before you cite",
            ("ID ↑", "LPIPS ↓", "MSE ↓", "seconds ↓"),
            {
                "ALAE": ("0.06", "0.32", "0.15", "0.207"),
                "IDInvert": ("0.18", "0.22", "0.06", "0.032"),
                "naive encoder, W": ("0.35", "0.23", "0.06", "0.064"),
                "naive encoder, W+": ("0.49", "0.19", "0.04", "0.064"),
                "pSp without identity loss": ("0.19", "0.17", "0.03", "0.105"),
                "pSp": ("0.56", "0.17", "0.03", "0.105"),
            },
        ),
        PublishedTable(
            "stylemap",
            "Reconstruction and editing of faces: StyleMap against pSp",
            "Honda et al., Image Editing and Evaluation by GAN Inversion using StyleMap, tables 1 and 2",
            "the paper's own: identity similarity, LPIPS and MSE of reconstructions; LEC: latent editing consistency, where"
            " several forms (vector, avg, min, max) and several edits exist, of which one figure is quoted",
            "quotations of these figures in another text; the other cells of both tables could not be had",
            ("similarity ↑", "LPIPS ↓", "MSE ↓", "LEC ↓"),
            {"pSp": ("0.56", "0.17", "0.04", "64"), "StyleMap (Map2Map)": ("0.67", "0.10", "0.02", "297")},
        ),
        PublishedTable(
            "ganinverter",
            "GANInverter's benchmark v1.0: many methods by one code",
            "Cao et al. 2023, GANInverter, github.com/caopulan/GANInverter, README, section Benchmark",
            "CelebA-HQ test split (2,824 faces), 256 px, images rounded to 8 bits; LPIPS-VGG16; ID and FID on saved PNGs, by"
            " networks that the README does not name; PTI without its regularisation; seconds on an RTX 3090",
            "the README itself, of April 2023 (commit 3f54137)",
            ("PSNR ↑", "MSE ↓", "LPIPS ↓", "ID ↑", "FID ↓", "seconds ↓"),
            {
                "optimisation, W": ("15.8460", "0.0670", "0.1967", "0.32", "25.7447", ""),
                "optimisation, W+": ("20.5940", "0.0242", "0.1092", "0.77", "17.0812", ""),
                "pSp": ("18.0348", "0.0345", "0.1591", "0.56", "25.2540", "0.041"),
                "e4e": ("16.6616", "0.0472", "0.1974", "0.50", "28.4952", "0.042"),
                "LSAP": ("17.4958", "0.0391", "0.1765", "0.53", "29.3118", "0.042"),
                "ReStyle-e4e": ("17.0903", "0.0428", "0.1904", "0.51", "25.5141", "0.150"),
                "HyperStyle (W encoder)": ("20.0864", "0.0219", "0.0985", "0.74", "21.6660", "0.162"),
                "PTI (W pivot)": ("24.6131", "0.0082", "0.0817", "0.85", "14.2792", "59"),
                "HFGI (e4e)": ("20.1402", "0.0210", "0.1166", "0.68", "16.0659", "0.067"),
                "SAM (e4e)": ("20.5933", "0.0193", "0.1442", "0.57", "17.3631", "67"),
                "SAM (LSAP)": ("21.6179", "0.0152", "0.1205", "0.60", "15.2710", "67"),
                "DHR (e4e)": ("28.1661", "0.0035", "0.0438", "0.87", "5.9960", "12"),
                "DHR (LSAP)": ("28.2786", "0.0034", "0.0422", "0.88", "6.0594", "12"),
            },
        ),
    ]
}
"""By the names that a user types."""


def published_tables(key: str) -> list[PublishedTable]:
    """Return the published table of a name; of a method's name, all tables that have figures of it.

    Raises:
        UnknownName: there is none.
    """
    if key in PUBLISHED:
        return [PUBLISHED[key]]
    tables = [table for table in PUBLISHED.values() if key.lower() in map(str.lower, table.rows)]
    if not tables:
        raise UnknownName("published table", key, PUBLISHED)
    return tables
