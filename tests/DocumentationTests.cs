using System.Text.Json;
using System.Text.RegularExpressions;

/// <summary>What is written about the receiver stays true.</summary>
public sealed partial class DocumentationTests {
    public static readonly string Root = FindRoot();
    static readonly string[] Program = File.ReadAllLines(Path.Combine(Root, "Program.cs"));
    static readonly string Readme = File.ReadAllText(Path.Combine(Root, "README.md"));

    static string FindRoot() {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Program.cs"))) folder = Path.GetDirectoryName(folder)!;
        return folder;
    }

    [Fact]
    public void The_contents_in_the_header_are_the_sections_that_follow() {
        string contents = Program.First(line => line.StartsWith("//    1. ", StringComparison.Ordinal));
        string[] told = [.. Numbered().Matches(contents).Select(match => match.Value.Trim())];
        string[] found = [.. Program.Where(line => line.StartsWith("// ---- ", StringComparison.Ordinal))
            .Select(line => line.Trim('/', ' ', '-'))];
        Assert.Equal(told, found);
    }

    [Fact]
    public void The_receiver_grows_no_longer_than_it_is() => Assert.InRange(Program.Length, 1, 1714);

    [Fact]
    public void A_method_can_be_read_on_one_screen() {
        var long40 = new List<string>();
        for (int start = 0, i = 0; i < Program.Length; i++) {
            if (MethodStart().IsMatch(Program[i])) start = i;
            if (Program[i] == "    }" && i - start + 1 > 40) long40.Add($"{Program[start].Trim()}: {i - start + 1} lines");
        }
        Assert.Empty(long40);
    }

    [Fact]
    public void The_README_lists_every_setting_with_its_default_and_no_other() {
        using var settings = JsonDocument.Parse(File.ReadAllText(Path.Combine(Root, "appsettings.json")));
        string[] inFile = [.. Leaves(settings.RootElement, "").Where(name => !name.StartsWith("Logging:", StringComparison.Ordinal)).Order()];
        string[] inReadme = [.. SettingRow().Matches(Readme).Select(match => match.Groups[1].Value).Order()];
        Assert.Equal(inFile, inReadme);
    }

    [Fact]
    public void The_README_stays_within_450_lines() => Assert.InRange(Readme.Split('\n').Length, 1, 451);

    static IEnumerable<string> Leaves(JsonElement json, string path) => json.ValueKind == JsonValueKind.Object
        ? json.EnumerateObject().SelectMany(member => Leaves(member.Value, path.Length == 0 ? member.Name : path + ":" + member.Name))
        : [path];

    [GeneratedRegex(@"\d\. [A-Za-z]+(?: |$)")] private static partial Regex Numbered();
    [GeneratedRegex(@"^    [A-Za-z].*[\)\]] ?(\{|=>.*)?$")] private static partial Regex MethodStart();
    [GeneratedRegex(@"^\| `([A-Z][A-Za-z]+(?::[A-Za-z]+)+)` \|", RegexOptions.Multiline)] private static partial Regex SettingRow();
}
