"""The end of `make demo`: the entry that the run has published, loaded back and used."""

import sys
from pathlib import Path

import genzoo
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import PerDatum
from genzoo.zoo.hub import Entry

folder = Path(sys.argv[1])
model = genzoo.load(folder)
x, labels = next(iter(DigitsDataModule(batch_size=5).test_dataloader()))
nats = model.log_prob(x, num_particles=100, generator=PerDatum(x))

print("\nfigures, on the 360 test digits")
for figure in Entry("digits/vae", folder).metrics["figures"]:
    relation = "≤" if figure.get("kind") == "lower_bound" else " "
    value = f"{figure['value']:,}" if isinstance(figure["value"], int) else f"{figure['value']:.4g}"
    print(f"  {figure['name']:16}{relation} {value:10} {figure['unit']}")
print("log p(x) of five test digits, in nats: at least", *(f"{value:.1f}" for value in nats))
print(f"samples     {folder.parent / 'samples.png'}")
print(f"in colour   {folder.parent / 'emoji.png'}, by the zoo's emoji/flow-matching")
print(f"entry       {folder}, which genzoo.load takes")
page = folder.parent / "page.html"
print(f"to look at  {page}: open {page.resolve().as_uri()}")
print(f"            there this model is called {folder}, and digits/vae is the zoo's own of the same recipe")
