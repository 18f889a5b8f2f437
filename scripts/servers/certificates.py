"""Certificates for servers that ask for TLS, good and bad ones."""

import subprocess


def openssl(*arguments, folder):
    done = subprocess.run(["openssl", *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr[-500:]}")


def make_certificates(folder):
    """An authority, another that signed nothing here, a server's and a client's certificate, and a server's that has expired."""
    folder.mkdir()
    for authority in ("ca", "other-ca"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN=maestro {authority}",
                "-keyout", f"{authority}.key", "-out", f"{authority}.pem", folder=folder)
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=it\n[it]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
        "policy=any\nunique_subject=no\nx509_extensions=names\n[any]\ncommonName=supplied\n"
        "[names]\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n")
    (folder / "index.txt").touch()
    (folder / "serial").write_text("01\n")
    valid = {"server": (), "client": (), "expired": ("-startdate", "20200101000000Z", "-enddate", "20200201000000Z")}
    for name, dates in valid.items():
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", folder=folder)
        openssl("ca", "-batch", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", f"{name}.csr",
                "-out", f"{name}.crt", "-notext", *(dates or ("-days", "30")), folder=folder)
        store = "".join((folder / each).read_text() for each in (f"{name}.key", f"{name}.crt", "ca.pem"))
        (folder / f"{name}.pem").write_text(store)
